//! The lab's README's table of scenarios, against the code; `UPDATE_README=1` writes it anew.

use std::collections::BTreeSet;
use std::{env, fs};

use xdp_dedup_lab::scenario::ALL;

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const MARKER: &str = "<!-- scenarios -->\n";

#[test]
fn the_readme_has_all_scenarios() {
    let row = |(name, expected): (&str, &str)| format!("| {name} | {expected} |\n");
    let mut table = row(("scenario", "what is expected")) + "|---|---|\n";
    for scenario in ALL {
        let note = if scenario.only_by_name {
            " (only with `--only`)"
        } else {
            ""
        };
        let name = format!("`{}`{note}", scenario.name);
        table += &row((&name, scenario.expected));
    }
    let text = fs::read_to_string(README).unwrap();
    let start = text.find(MARKER).unwrap() + MARKER.len();
    let end = start + text[start..].find("<!-- end -->").unwrap();
    if env::var_os("UPDATE_README").is_some() {
        fs::write(README, [&text[..start], &table, &text[end..]].concat()).unwrap();
    } else {
        assert_eq!(&text[start..end], table, "UPDATE_README=1 writes it anew");
    }
}

#[test]
fn scenarios_and_their_rows_have_names_of_their_own() {
    let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
    assert_eq!(names.len(), ALL.len());
    for scenario in ALL {
        let [short, long] = [true, false].map(|short| {
            let rows = (scenario.rows)(short);
            let names: BTreeSet<_> = rows.iter().map(|row| row.name().to_owned()).collect();
            assert_eq!(names.len(), rows.len(), "{}", scenario.name);
            names
        });
        assert!(!short.is_empty(), "{}: no rows", scenario.name);
        assert!(short.len() <= long.len(), "{}", scenario.name);
    }
}
