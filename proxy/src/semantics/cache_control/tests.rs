//! Each directive, as it is written well and badly, over one line and several.

use super::super::sample::fields;
use super::*;

fn response(value: &str) -> ResponseDirectives {
    ResponseDirectives::of(&fields(value))
}

#[test]
fn numbers_of_seconds() {
    for (value, max_age) in [
        ("Cache-Control: max-age=3600", Some(3600)),
        ("Cache-Control: MaX-aGe=3600", Some(3600)),
        ("cache-control: foobar, max-age=003600", Some(3600)),
        (r#"Cache-Control: max-age="3600""#, Some(3600)),
        (r#"Cache-Control: max-age="36\00""#, Some(3600)),
        ("Cache-Control: max-age=0", Some(0)),
        ("Cache-Control: max-age=2147483647", Some(2_147_483_647)),
        ("Cache-Control: max-age=2147483649", Some(SECONDS_MAX)),
        ("Cache-Control: max-age=99999999999999999999999999", Some(SECONDS_MAX)),
        // Invalid: stale.
        ("Cache-Control: max-age", Some(0)),
        ("Cache-Control: max-age=", Some(0)),
        ("Cache-Control: max-age=-1", Some(0)),
        ("Cache-Control: max-age=+1", Some(0)),
        ("Cache-Control: max-age=3600.0", Some(0)),
        ("Cache-Control: max-age=a3600", Some(0)),
        ("Cache-Control: max-age=3600a", Some(0)),
        ("Cache-Control: max-age='3600'", Some(0)),
        ("Cache-Control: max-age =3600", Some(0)),
        ("Cache-Control: max-age= 3600", Some(0)),
        (r#"Cache-Control: max-age="3600"#, Some(0)),
        (r#"Cache-Control: max-age="36"00""#, Some(0)),
        // Doubled: the smaller.
        ("Cache-Control: max-age=1800, max-age=1", Some(1)),
        ("Cache-Control: max-age=1\nCache-Control: max-age=1800", Some(1)),
        ("Cache-Control: max-age=1800, max-age=x", Some(0)),
        // Not directives.
        (r#"Cache-Control: extension="max-age=3600""#, None),
        (r#"Cache-Control: extension="a, max-age=3600""#, None),
        ("Cache-Control: x-max-age=3600; max-age=1", None),
        ("Expires: max-age=3600", None),
    ] {
        assert_eq!(response(value).max_age, max_age, "{value}");
    }
}

#[test]
fn every_response_directive_is_found_over_all_lines() {
    let found = response(
        "Cache-Control: No-Store, no-cache, private,, public
         Cache-Control: must-revalidate, proxy-revalidate, must-understand
         Cache-Control: max-age=1, s-maxage=2, stale-while-revalidate=3, stale-if-error=4",
    );
    let expected = ResponseDirectives {
        no_store: true,
        no_cache: true,
        private: true,
        public: true,
        must_revalidate: true,
        proxy_revalidate: true,
        must_understand: true,
        max_age: Some(1),
        s_maxage: Some(2),
        stale_while_revalidate: Some(3),
        stale_if_error: Some(4),
        ..ResponseDirectives::default()
    };
    assert_eq!(found, expected);
    assert_eq!(response("X: no-store"), ResponseDirectives::default());
}

#[test]
fn malformed_directives_are_read_strictly() {
    for whole in [r#"="""#, r#"=", ,""#, r#"="a"#, r#"="a b""#, r#"="a", private"#, "=", r#"="a/b""#] {
        assert!(response(&format!("Cache-Control: private{whole}, max-age=9")).private, "{whole}");
    }
    assert!(response("Cache-Control: no-store=0").no_store);
    assert!(response(r#"Cache-Control: ext="a, no-store"#).no_store, "an unclosed quote hides nothing");
    assert!(!response(r#"Cache-Control: ext="a, no-store""#).no_store);
    assert!(!response("Cache-Control: public=x").public);
    assert_eq!(response("Cache-Control: stale-if-error=soon").stale_if_error, Some(0));
}

#[test]
fn a_directive_that_names_fields_is_about_those() {
    for (value, withheld) in [
        (r#"private="set-cookie", max-age=9"#, &["set-cookie"][..]),
        (r#"no-cache="A, b ,,c""#, &["a", "b", "c"]),
        (r#"no-cache="a", private=B"#, &["a", "b"]),
        (r#"private="a", private="b""#, &["a", "b"]),
    ] {
        let found = response(&format!("Cache-Control: {value}"));
        assert_eq!(
            (found.withheld.as_slice(), found.private, found.no_cache),
            (&withheld.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()[..], false, false),
            "{value}"
        );
    }
    let both = response(r#"Cache-Control: no-cache="a", no-cache"#);
    assert!(both.no_cache && both.withholds("A") && !both.withholds("b"));
}

#[test]
fn what_is_sent_is_well_formed() {
    for (text, expected) in [
        ("public, max-age=5", true),
        ("no-store", true),
        ("private=\"set-cookie\", X-Own=a+b", true),
        ("max-age=3600, content=\"ESI/1.0\"", true),
        ("", false),
        ("public,, max-age=5", false),
        ("public, ", false),
        ("max-age", false),
        ("max-age=", false),
        ("max-age=5s", false),
        ("max-age=\"5\"", false),
        ("s-maxage=-1", false),
        ("max-age = 5", false),
        ("max age=5", false),
        ("public; max-age=5", false),
        ("x=\"open", false),
        ("x=a b", false),
        ("x=\u{e4}", false),
        ("public\r\nX: y", false),
    ] {
        assert_eq!(is_well_formed(text), expected, "{text}");
    }
}

#[test]
fn each_wish_of_a_client_can_be_left_unheeded() {
    let all = RequestDirectives::of(&fields(
        "Cache-Control: no-store, no-cache, only-if-cached, max-age=1, min-fresh=2, max-stale=3, stale-if-error=4",
    ));
    assert_eq!(all.heeded(&ClientDirectives::default()), all);
    let none = ClientDirectives {
        no_store: false,
        no_cache: false,
        only_if_cached: false,
        max_age: false,
        min_fresh: false,
        max_stale: false,
        stale_if_error: false,
    };
    assert_eq!(all.heeded(&none), RequestDirectives::default());
    let reload = ClientDirectives { no_cache: false, max_age: false, ..ClientDirectives::default() };
    let expected = RequestDirectives { no_cache: false, max_age: None, ..all.clone() };
    assert_eq!(all.heeded(&reload), expected);
}

#[test]
fn request_directives() {
    let none = RequestDirectives::default();
    for (lines, expected) in [
        ("", none.clone()),
        ("Cache-Control: no-store", RequestDirectives { no_store: true, ..none.clone() }),
        ("Cache-Control: NO-CACHE", RequestDirectives { no_cache: true, ..none.clone() }),
        ("Cache-Control: only-if-cached", RequestDirectives { only_if_cached: true, ..none.clone() }),
        ("Cache-Control: max-age=5, max-age=x", RequestDirectives { max_age: Some(0), ..none.clone() }),
        ("Cache-Control: min-fresh=5, min-fresh=7", RequestDirectives { min_fresh: Some(7), ..none.clone() }),
        ("Cache-Control: min-fresh=x", none.clone()),
        ("Cache-Control: max-stale", RequestDirectives { max_stale: Some(MaxStale::Any), ..none.clone() }),
        (
            "Cache-Control: max-stale, max-stale=9, max-stale=10",
            RequestDirectives { max_stale: Some(MaxStale::Seconds(9)), ..none.clone() },
        ),
        ("Cache-Control: max-stale=x", none.clone()),
        ("Cache-Control: No-Transform", RequestDirectives { no_transform: true, ..none.clone() }),
        ("Cache-Control: stale-if-error=7", RequestDirectives { stale_if_error: Some(7), ..none.clone() }),
        ("Cache-Control: stale-if-error, stale-if-error=x", none.clone()),
        ("Pragma: x, No-Cache", RequestDirectives { no_cache: true, ..none.clone() }),
        ("Pragma: unrecognised-extension", none.clone()),
        ("Pragma: no-cache\nCache-Control: max-age=9", RequestDirectives { max_age: Some(9), ..none.clone() }),
    ] {
        assert_eq!(RequestDirectives::of(&fields(lines)), expected, "{lines}");
    }
}
