//! A sort for a few values, in place. The standard library's takes 2.5 KB of code for each type that is sorted.

/// Sorts by insertion: for dozens of values, or for what is mostly in order. Values that are equal keep their order.
pub fn sort_few<T, K: Ord>(values: &mut [T], key: impl Fn(&T) -> K) {
    for end in 1..values.len() {
        let mut at = end;
        while let Some([before, after]) = at.checked_sub(1).and_then(|first| values.get(first..=at))
            && key(after) < key(before)
        {
            values.swap(at - 1, at);
            at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_sorted() {
        let check = |mut values: Vec<(i32, char)>, expected: &[(i32, char)]| {
            sort_few(&mut values, |value| value.0);
            assert_eq!(values, expected);
        };
        check(vec![], &[]);
        check(vec![(1, 'a')], &[(1, 'a')]);
        check(
            vec![(3, 'a'), (1, 'b'), (3, 'c'), (-2, 'd'), (1, 'e')],
            &[(-2, 'd'), (1, 'b'), (1, 'e'), (3, 'a'), (3, 'c')],
        );
    }
}
