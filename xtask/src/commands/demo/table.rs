//! The table that a person understands at a glance.

use super::outcome::Comparison;
use super::scene::Scene;

/// Prints it; `delivered` names the line with the copies that came through.
pub fn show(scene: &Scene, comparison: &Comparison, delivered: &str) {
    let Comparison { without, with, .. } = comparison;
    let same = |number: usize| [number.to_string(), number.to_string()];
    let both = |one: usize, other: usize| [one.to_string(), other.to_string()];
    let of = |number: usize| format!("{number} of {}", scene.bystanders());
    let rows = [
        ("messages sent by clients", same(scene.transmissions.len())),
        ("frames sent by the two relays", same(scene.copies())),
        (delivered, both(without.delivered(), with.delivered())),
        (
            "  of these, second copies",
            both(without.repeated(), with.repeated()),
        ),
        (
            "duplicates dropped",
            ["-".to_owned(), comparison.dropped().to_string()],
        ),
        ("messages lost", both(without.lost(scene), with.lost(scene))),
        (
            "other traffic",
            [of(without.bystanders()), of(with.bystanders())],
        ),
    ];
    let heading = ["without filter".to_owned(), "with xdp-dedup".to_owned()];
    print_row("", &heading);
    println!("  {}", "-".repeat(68));
    for (name, values) in rows {
        print_row(name, &values);
    }
    println!(
        "\n  The {} second copies that still pass are on purpose: a client that sends the same \
         message a third\n  time is not being served, so all copies of that one go through \
         (--escalate-every 3).",
        scene.escalated()
    );
}

fn print_row(name: &str, [without, with]: &[String; 2]) {
    println!("  {name:<34}{without:>16}{with:>18}");
}
