//! Circles of `after` and `requires`: which units wait for each other, and by which way round.

use std::collections::{BinaryHeap, VecDeque};

/// Edges by position: `edges[a]` holds every `b` that `a` waits for.
pub(super) type Edges = [Vec<usize>];

/// The groups of two or more units that all wait for each other (the strongly connected components).
///
/// Tarjan's algorithm with its stack on the heap: a chain of a thousand units must not use PID 1's stack.
pub(super) fn groups(edges: &Edges) -> Vec<Vec<usize>> {
    let mut search =
        Search { edges, seen: vec![None; edges.len()], open: Vec::new(), next: 0, found: Vec::new() };
    for start in 0..edges.len() {
        search.from(start);
    }
    let sorted = search.found.into_iter().map(|group| BinaryHeap::from(group).into_sorted_vec());
    BinaryHeap::from_iter(sorted).into_sorted_vec()
}

struct Search<'e> {
    edges: &'e Edges,
    /// When a unit was first met, the earliest open unit it reaches, and whether its group is still open.
    seen: Vec<Option<Mark>>,
    open: Vec<usize>,
    next: usize,
    found: Vec<Vec<usize>>,
}

#[derive(Clone, Copy)]
struct Mark {
    met: usize,
    low: usize,
    is_open: bool,
}

impl Search<'_> {
    fn mark(&self, unit: usize) -> Option<Mark> {
        self.seen.get(unit).copied().flatten()
    }

    fn from(&mut self, start: usize) {
        // Each entry is a unit on the way and how many of its edges have been walked.
        let mut way: Vec<(usize, usize)> = Vec::new();
        if self.mark(start).is_none() {
            self.enter(start);
            way.push((start, 0));
        }
        while let Some((unit, walked)) = way.last_mut() {
            let unit = *unit;
            let target = self.edges.get(unit).and_then(|edges| edges.get(*walked)).copied();
            *walked += 1;
            match target {
                Some(target) if self.mark(target).is_none() => {
                    self.enter(target);
                    way.push((target, 0));
                }
                Some(target) => {
                    let met = self.mark(target).filter(|mark| mark.is_open).map(|mark| mark.met);
                    self.lower(unit, met);
                }
                None => {
                    way.pop();
                    self.leave(unit);
                    let low = self.mark(unit).map(|mark| mark.low);
                    if let Some((before, _)) = way.last() {
                        self.lower(*before, low);
                    }
                }
            }
        }
    }

    fn enter(&mut self, unit: usize) {
        if let Some(slot) = self.seen.get_mut(unit) {
            *slot = Some(Mark { met: self.next, low: self.next, is_open: true });
            self.next += 1;
            self.open.push(unit);
        }
    }

    fn lower(&mut self, unit: usize, to: Option<usize>) {
        if let (Some(Some(mark)), Some(to)) = (self.seen.get_mut(unit), to) {
            mark.low = mark.low.min(to);
        }
    }

    /// All edges of a unit are walked: where it reaches nothing earlier, it closes its group.
    fn leave(&mut self, unit: usize) {
        if self.mark(unit).is_none_or(|mark| mark.low != mark.met) {
            return;
        }
        let mut group = Vec::new();
        while let Some(member) = self.open.pop() {
            if let Some(Some(mark)) = self.seen.get_mut(member) {
                mark.is_open = false;
            }
            group.push(member);
            if member == unit {
                break;
            }
        }
        if group.len() > 1 {
            self.found.push(group);
        }
    }
}

/// The shortest way from the first unit of a group back to itself, with that unit at both ends.
pub(super) fn way_round(edges: &Edges, group: &[usize]) -> Vec<usize> {
    let Some(&start) = group.first() else { return Vec::new() };
    let mut came_from: Vec<Option<usize>> = vec![None; edges.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(unit) = queue.pop_front() {
        for &target in edges.get(unit).into_iter().flatten() {
            if target == start {
                let mut way = vec![start, unit];
                let mut at = unit;
                while let Some(before) = came_from.get(at).copied().flatten().filter(|_| at != start) {
                    way.push(before);
                    at = before;
                }
                if unit == start {
                    way.pop();
                }
                way.reverse();
                return way;
            }
            let slot = came_from.get_mut(target).filter(|slot| slot.is_none());
            if let Some(slot) = slot.filter(|_| group.binary_search(&target).is_ok()) {
                *slot = Some(unit);
                queue.push_back(target);
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn circles() {
        let check = |edges: &[&[usize]], expected: &[(&[usize], &[usize])]| {
            let edges: Vec<Vec<usize>> = edges.iter().map(|targets| targets.to_vec()).collect();
            let found = groups(&edges);
            let ways: Vec<Vec<usize>> = found.iter().map(|group| way_round(&edges, group)).collect();
            let expected_groups: Vec<&[usize]> = expected.iter().map(|(group, _)| *group).collect();
            let expected_ways: Vec<&[usize]> = expected.iter().map(|(_, way)| *way).collect();
            assert_eq!(found, expected_groups, "{edges:?}");
            assert_eq!(ways, expected_ways, "{edges:?}");
        };
        check(&[], &[]);
        check(&[&[1], &[2], &[]], &[]);
        check(&[&[1], &[0]], &[(&[0, 1], &[0, 1, 0])]);
        check(&[&[1], &[2], &[0], &[0]], &[(&[0, 1, 2], &[0, 1, 2, 0])]);
        // A bridge between two circles stands in neither.
        check(&[&[1], &[0, 2], &[3], &[4], &[3]], &[(&[0, 1], &[0, 1, 0]), (&[3, 4], &[3, 4, 3])]);
        // Two circles through one unit: one group, and the shorter way round.
        check(&[&[1, 3], &[2], &[0], &[0]], &[(&[0, 1, 2, 3], &[0, 3, 0])]);
        check(&[&[1, 2], &[2], &[1]], &[(&[1, 2], &[1, 2, 1])]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let mut edges: Vec<Vec<usize>> = (1..=50_000).map(|next| vec![next]).collect();
        edges.push(Vec::new());
        assert_eq!(groups(&edges), Vec::<Vec<usize>>::new());
        edges[50_000].push(0);
        assert_eq!(groups(&edges).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against reachability by brute force.
        #[test]
        fn same_as_brute_force(edges in prop::collection::vec(prop::collection::vec(0..8_usize, 0..3), 8)) {
            let mut reach: Vec<Vec<bool>> =
                (0..8).map(|a| (0..8).map(|b| edges[a].contains(&b)).collect()).collect();
            for k in 0..8 { for a in 0..8 { for b in 0..8 {
                reach[a][b] |= reach[a][k] && reach[k][b];
            } } }
            let together = |a: usize, b: usize| a != b && reach[a][b] && reach[b][a];
            let found = groups(&edges);
            for a in 0..8 { for b in 0..8 {
                let same = a != b && found.iter().any(|group| group.contains(&a) && group.contains(&b));
                prop_assert_eq!(same, together(a, b));
            } }
            for group in &found {
                let way = way_round(&edges, group);
                prop_assert!(way.windows(2).all(|step| edges[step[0]].contains(&step[1])));
                prop_assert_eq!(way.first(), way.last());
            }
        }
    }
}
