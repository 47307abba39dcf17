//! Templates: `getty@.ron` describes `getty@ttyS0`, `getty@ttyS1`, ... Every string in such a file may hold `%i`, which
//! stands for what follows the `@` in the unit's name, and `%%` for a percent sign.

use super::check;
use super::diagnostic::{Wrong, short};
use super::reader::{Item, Reader, Slot};

/// The name of a template and its instance's argument: `getty@ttyS0` is `getty@` and `ttyS0`. `None` for a name
/// without `@`, and for a template itself.
pub(super) fn split(name: &str) -> Option<(&str, &str)> {
    let at = name.find('@')? + 1;
    let (template, argument) = name.split_at_checked(at)?;
    if argument.is_empty() { None } else { Some((template, argument)) }
}

/// Whether a file of this name is a template.
pub(super) fn is_template(name: &str) -> bool {
    name.find('@').is_some_and(|at| at + 1 == name.len())
}

/// Whether a unit of this name can come of a template.
#[must_use]
pub fn is_instance(name: &str) -> bool {
    split(name).is_some() && check::name_fault(name).is_none()
}

/// Puts the argument in.
pub(super) fn expand(text: &str, argument: &str) -> Result<String, Wrong> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        expanded.push_str(before);
        let mut chars = after.chars();
        match chars.next() {
            Some('i') => expanded.push_str(argument),
            Some('%') => expanded.push('%'),
            other => {
                let found = other.map(String::from).unwrap_or_default();
                let wrong = Wrong::new(format!("`%{}` means nothing", short(&found)));
                return Err(wrong.hint("%i is what follows the @ in the unit's name, %% is a percent sign"));
            }
        }
        rest = chars.as_str();
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// The field `instances`: the units that a template makes by itself.
pub(super) fn instances(reader: &mut Reader<'_>, slot: Slot<Vec<Item<String>>>, name: &str) -> Vec<String> {
    let Some(Item { value: list, at }) = slot.given() else { return Vec::new() };
    let Some((template, _)) = split(name) else {
        let wrong = Wrong::new("only a template has instances");
        reader.fault_in("instances", &at, wrong.hint("a template is a file called NAME@.ron"));
        return Vec::new();
    };
    let mut names = Vec::new();
    for Item { value: argument, at } in list {
        let name = format!("{template}{argument}");
        match check::name_fault(&name).filter(|_| !argument.is_empty()) {
            None if !argument.is_empty() => names.push(name),
            _ => {
                let wrong =
                    Wrong::new(format!("`{}` cannot follow the @ in a unit's name", short(&argument)));
                reader.fault_in("instances", &at, wrong.hint("use letters, digits, _ . @ and -"));
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("getty@ttyS0", Some(("getty@", "ttyS0"))),
            ("a@b@c", Some(("a@", "b@c"))),
            ("a@b@", Some(("a@", "b@"))),
            ("getty@", None),
            ("getty", None),
            ("", None),
        ] {
            assert_eq!(split(name), expected, "{name}");
        }
        assert!(is_template("getty@") && !is_template("getty@x") && !is_template("a@b@"));
    }

    #[test]
    fn markers() {
        for (text, expected) in [
            ("", Some("")),
            ("/dev/%i", Some("/dev/ttyS0")),
            ("%i%i%%i", Some("ttyS0ttyS0%i")),
            ("100%%", Some("100%")),
            ("100%", None),
            ("%I", None),
            ("%ö", None),
        ] {
            assert_eq!(expand(text, "ttyS0").ok().as_deref(), expected, "{text}");
        }
    }
}
