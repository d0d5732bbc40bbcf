//! `$(NAME)` in environment values, commands and paths.

/// Replaces each `$(NAME)` that `lookup` knows; what it does not know stays as it is, and `$$` is a single `$`
/// (Kubernetes' rule for `command`, `args` and `env`).
pub(crate) fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "REF" => Some("$(A)".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        assert_eq!(expand(text, lookup), expected, "{text}");
    }

    #[test]
    fn known_names_are_replaced_and_the_rest_stays() {
        check("", "");
        check("plain", "plain");
        check("$(A)", "1");
        check("x$(A)y$(A)", "x1y1");
        check("$(B)", "$(B)");
        check("$(EMPTY)!", "!");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$1");
        check("$", "$");
        check("$$", "$");
        check("$A ${A}", "$A ${A}");
        check("$(A", "$(A");
        check("$(REF)", "$(A)");
        check("ü$(A)ü", "ü1ü");
    }
}
