//! A JSON pointer finds what `serde_json` finds in a value that it built.

use kitbag_domain::{Content, Limits, Pointer};
use kitbag_testkit::dice::Dice;
use serde_json::Value;

/// Names that collide, are numbers, or must be escaped in a pointer or in JSON.
const NAMES: [&str; 12] = [
    "", "0", "1", "00", "01", "-", "a", "b", "a/b", "m~n", "~1", "é\"\\",
];
/// What stands in a pointer without being in any of the contents.
const STRANGERS: [&str; 4] = ["2", "+1", "99999999999999999999999", "c"];

#[test]
fn a_pointer_finds_what_serde_json_finds() {
    let mut dice = Dice::new(1);
    let mut found_count = 0;
    for _ in 0..1_000 {
        let mut text = String::new();
        write_object(&mut text, &mut dice, 4);
        let value: Value = serde_json::from_str(&text).unwrap();
        let content = Content::parse(text.clone().into(), &Limits::default()).unwrap();
        for _ in 0..8 {
            let pointer = draw_pointer(&mut dice);
            let found = Pointer::parse(&pointer).unwrap().find(&content);
            let found = found.map(|text| serde_json::from_str::<Value>(text).unwrap());
            assert_eq!(
                found.as_ref(),
                value.pointer(&pointer),
                "{pointer} in {text}"
            );
            found_count += usize::from(found.is_some_and(|found| found != value));
        }
    }
    assert!(
        found_count > 400,
        "most of them found nothing: {found_count}"
    );
}

fn draw_pointer(dice: &mut Dice) -> String {
    let mut pointer = String::new();
    for _ in 0..dice.below(4) {
        let name = if dice.chance(10) {
            STRANGERS[dice.below(STRANGERS.len())]
        } else {
            NAMES[dice.below(NAMES.len())]
        };
        pointer.push('/');
        pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
    }
    pointer
}

/// Writes an object, in which names may stand twice.
fn write_object(out: &mut String, dice: &mut Dice, depth: usize) {
    out.push('{');
    for number in 0..dice.below(8) {
        separate(out, dice, number);
        let name = NAMES[dice.below(NAMES.len())];
        out.push_str(&Value::from(name).to_string());
        out.push_str(if dice.chance(30) { " : " } else { ":" });
        write_value(out, dice, depth);
    }
    out.push('}');
}

fn write_array(out: &mut String, dice: &mut Dice, depth: usize) {
    out.push('[');
    for number in 0..dice.below(4) {
        separate(out, dice, number);
        write_value(out, dice, depth);
    }
    out.push(']');
}

fn write_value(out: &mut String, dice: &mut Dice, depth: usize) {
    match dice.below(if depth == 0 { 3 } else { 6 }) {
        0 => out.push_str(["null", "true", "1", "-2.5e3"][dice.below(4)]),
        1 => out.push_str(r#""a\u0041{[\"]}""#),
        2 => out.push_str("\"0\""),
        3 => write_array(out, dice, depth - 1),
        _ => write_object(out, dice, depth - 1),
    }
}

fn separate(out: &mut String, dice: &mut Dice, number: usize) {
    if number > 0 {
        out.push(',');
    }
    if dice.chance(30) {
        out.push_str("\n ");
    }
}
