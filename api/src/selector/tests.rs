use proptest::prelude::*;

use super::*;

fn labels(pairs: &str) -> BTreeMap<String, String> {
    pairs.split(' ').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
}

#[test]
fn label_selectors_match_as_kubernetes_does() {
    let web = labels("app=web tier=front weight=5");
    for (text, expected) in [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , tier=front", true),
        ("app!=web", false),
        ("missing!=web", true),
        ("app in (web,db)", true),
        ("app in (db)", false),
        ("app notin (db), tier in (front, back)", true),
        ("missing notin (x)", true),
        ("app", true),
        ("!app", false),
        ("!missing", true),
        ("weight>4", true),
        ("weight<4", false),
        ("app>1", false),
        ("app=", false),
        ("x.y/app=web", false),
    ] {
        let selector: LabelSelector = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.matches(&web), expected, "{text}");
    }
}

#[test]
fn broken_label_selectors_are_refused() {
    for text in ["=a", "a in b", "a in (b", "a=b,", "a b", "a>x", "a=b=c", "!", "a in (b)c", "UPPER/x=1", "-a=b"] {
        assert!(text.parse::<LabelSelector>().is_err(), "{text:?}");
    }
}

#[test]
fn field_selectors_compare_text() {
    let field = |path: &str| (path == "spec.nodeName").then(|| "n1".to_owned());
    for (text, expected) in [
        ("", true),
        ("spec.nodeName=n1", true),
        ("spec.nodeName==n1", true),
        ("spec.nodeName!=n1", false),
        ("spec.nodeName=", false),
        ("status.phase=", true),
        ("status.phase!=Running,spec.nodeName=n1", true),
    ] {
        let selector: FieldSelector = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(selector.matches_with(field), expected, "{text}");
    }
    assert!("nothing".parse::<FieldSelector>().is_err());
    assert!("a=b\\x".parse::<FieldSelector>().is_err());
    let escaped: FieldSelector = "a=b\\,c\\=d".parse().unwrap();
    assert_eq!(escaped.required("a"), Some("b,c=d"));
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z!=<>(), \\\\./A-Z0-9]{0,40}|\\PC{0,40}") {
        let _ = text.parse::<LabelSelector>();
        if let Ok(selector) = text.parse::<FieldSelector>() {
            prop_assert_eq!(selector.to_string().parse::<FieldSelector>(), Ok(selector));
        }
    }
}
