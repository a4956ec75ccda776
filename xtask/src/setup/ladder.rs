//! A ladder of ways to get at something: tried in order, the first that works is taken.

use std::fmt::Write;

use anyhow::{Error, Result};

/// How a try of one rung ended, short of an error that forbids going on.
pub enum Attempt<T> {
    /// It worked.
    Found(T),
    /// It did not, for this reason; the next rung may.
    Missing(String),
}

impl<T> From<Result<T>> for Attempt<T> {
    fn from(result: Result<T>) -> Self {
        match result {
            Ok(found) => Self::Found(found),
            Err(error) => Self::Missing(format!("{error:#}")),
        }
    }
}

/// One way, by its name.
pub struct Rung<'a, T> {
    pub name: &'static str,
    pub attempt: Box<dyn FnOnce() -> Result<Attempt<T>> + 'a>,
}

impl<'a, T> Rung<'a, T> {
    pub fn new(name: &'static str, attempt: impl FnOnce() -> Result<Attempt<T>> + 'a) -> Self {
        Self {
            name,
            attempt: Box::new(attempt),
        }
    }
}

/// Takes the first rung that holds, and hands back its name and what it found. If none does,
/// `exhausted` makes the error of a list of them all with their reasons. A rung's own error ends
/// the climb.
pub fn climb<T>(
    rungs: Vec<Rung<'_, T>>,
    exhausted: impl FnOnce(&str) -> Error,
) -> Result<(&'static str, T)> {
    let mut tried = String::new();
    for rung in rungs {
        match (rung.attempt)()? {
            Attempt::Found(found) => return Ok((rung.name, found)),
            Attempt::Missing(why) => write!(tried, "\n  - {}: {why}", rung.name)?,
        }
    }
    Err(exhausted(&tried))
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[derive(Clone, Copy)]
    enum Outcome {
        Holds,
        Fails,
        Forbids,
    }
    use Outcome::{Fails, Forbids, Holds};

    #[test]
    fn the_first_rung_that_holds_is_taken_and_an_error_ends_the_climb() {
        for (outcomes, expected) in [
            ([Holds, Holds, Holds], "took first"),
            ([Fails, Holds, Forbids], "took second"),
            ([Fails, Fails, Holds], "took third"),
            ([Fails, Forbids, Holds], "second is wrong"),
            (
                [Fails, Fails, Fails],
                "\n  - first: no first\n  - second: no second\n  - third: no third",
            ),
        ] {
            let rungs = ["first", "second", "third"].into_iter().zip(outcomes);
            let rungs = rungs.map(|(name, outcome)| {
                Rung::new(name, move || match outcome {
                    Holds => Ok(Attempt::Found(name)),
                    Fails => Ok(Attempt::from(Err(anyhow!("no {name}")))),
                    Forbids => Err(anyhow!("{name} is wrong")),
                })
            });
            let result = match climb(rungs.collect(), |tried| anyhow!("{tried}")) {
                Ok((name, found)) => {
                    assert_eq!(name, found);
                    format!("took {name}")
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(result, expected);
        }
    }
}
