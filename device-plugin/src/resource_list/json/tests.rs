use proptest::prelude::*;
use serde_json::Value;

use super::*;

/// The same value without places; of equal keys the last counts.
fn plain(node: &Node) -> Value {
    match &node.value {
        Json::Null => Value::Null,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(text) => serde_json::from_str(text).unwrap(),
        Json::String(text) => Value::String(text.clone()),
        Json::Array(items) => items.iter().map(plain).collect(),
        Json::Object(members) => members.iter().map(|(_, k, v)| (k.clone(), plain(v))).collect(),
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..6)
                .prop_map(|members| members.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_prints_is_read_as_the_same_value(value in any_json(), pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
        prop_assert_eq!(plain(&parse(&text.unwrap()).unwrap()), value);
    }

    #[test]
    fn a_text_is_json_exactly_if_serde_json_says_so(text in "[\\[\\]{}:,\" a-f0-9.\\-+eE\\\\untr\n]{0,24}") {
        let ours = parse(&text);
        // A lone half of a surrogate pair and a number past f64 are what serde_json does not take.
        match serde_json::from_str::<Value>(&text) {
            Ok(value) => prop_assert_eq!(plain(&ours.unwrap()), value),
            Err(error) if error.to_string().contains("out of range") || text.contains("\\u") => {}
            Err(_) => prop_assert!(ours.is_err(), "{:?}", text),
        }
    }

    #[test]
    fn no_text_makes_it_panic(text: String) {
        let _ = parse(&text);
    }
}

#[test]
fn errors_name_the_place_and_what_to_do() {
    for (text, message) in [
        ("{\n  \"a\": [1,],\n}", "line 2 column 11: ']' after a comma: remove the comma"),
        ("{\"a\": 1,\n}", "line 2 column 1: '}' after a comma: remove the comma"),
        ("[{ {", "line 1 column 4: '{' where a key in double quotes is expected"),
        ("{\"a\" 1}", "line 1 column 6: '1' where ':' after a key is expected"),
        ("{\"a\": \"\u{e4}\" x}", "line 1 column 11: 'x' where ',' or '}' is expected"),
        ("", "line 1 column 1: the text ends where a value is expected"),
        ("1 1", "line 1 column 3: more text after the end of the value"),
        ("\"a\nb\"", "line 1 column 3: a string that goes on past the end of its line"),
        ("nul", "line 1 column 1: 'n' where a value is expected"),
        ("01", "line 1 column 2: more text after the end of the value"),
        ("\"\\u12g4\"", "line 1 column 6: 'g' where four hexadecimal digits is expected"),
    ] {
        assert_eq!(parse(text).unwrap_err().to_string(), message, "{text}");
    }
}

#[test]
fn nesting_has_a_limit() {
    assert!(parse(&format!("{}{}", "[".repeat(64), "]".repeat(64))).is_ok());
    assert!(parse(&"[".repeat(1_000_000)).unwrap_err().what.contains("nested more than 64 deep"));
}

#[test]
fn places_count_characters_from_one() {
    let node = parse("{\n\t\"\u{e4}\": [null,\n 7]}").unwrap();
    let Json::Object(members) = node.value else { panic!() };
    assert_eq!(members[0].0, Spot { line: 2, column: 2 });
    let Json::Array(items) = &members[0].2.value else { panic!() };
    assert_eq!((items[0].at, items[1].at), (Spot { line: 2, column: 8 }, Spot { line: 3, column: 2 }));
}
