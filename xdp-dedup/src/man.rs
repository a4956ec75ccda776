//! `man`: the manual pages, generated from the command line itself.

mod sections;

use std::{
    env, fs,
    io::{self, Write as _},
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use clap::{Args, Command, CommandFactory as _};
use clap_mangen::{Man, roff::Roff};

use crate::cli::Cli;

/// System administration tools and daemons.
const SECTION: &str = "8";
const MANUAL: &str = "System Administration";

/// <https://reproducible-builds.org/specs/source-date-epoch/>
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Arguments of `man`.
#[derive(Args, Debug)]
pub struct ManArgs {
    /// Write a page of its own for each command into this folder, instead of printing all in one
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints or writes the pages.
///
/// # Errors
///
/// Where they cannot be written.
pub fn run(args: &ManArgs) -> Result<()> {
    let mut overview = Cli::command()
        .disable_help_subcommand(true)
        .subcommand_help_heading("COMMANDS")
        .subcommand_value_name("command");
    // It gives the commands their whole names.
    overview.build();
    let Some(dir) = &args.dir else {
        return io::stdout()
            .write_all(in_one(&overview)?.as_bytes())
            .context("cannot write the manual page");
    };
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let write = |name: &str, page: String| {
        let file = dir.join(format!("{name}.{SECTION}"));
        fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))
    };
    write(overview.get_name(), on_top(&overview)?)?;
    for command in commands(&overview) {
        write(whole_name(command), of_command(command, &overview)?)?;
    }
    Ok(())
}

/// All in one page, with a section for each command.
fn in_one(overview: &Command) -> Result<String> {
    let mut page = Page::of(overview)?;
    for command in commands(overview) {
        let name = command.get_bin_name().unwrap_or(command.get_name());
        let man = Man::new(command.clone());
        page.heading(name);
        page.add_beneath(|text| man.render_synopsis_section(text))?;
        page.paragraph();
        page.add_beneath(|text| man.render_description_section(text))?;
        page.add_beneath(|text| man.render_options_section(text))?;
    }
    page.end(&sections::of_overview())
}

/// The page that leads to those of the commands.
fn on_top(overview: &Command) -> Result<String> {
    let mut page = Page::of(overview)?;
    let man = Man::new(overview.clone()).section(SECTION);
    page.add(|text| man.render_options_section(text))?;
    page.add(|text| man.render_subcommands_section(text))?;
    page.end(&sections::of_overview())
}

/// The page of one command.
fn of_command(command: &Command, overview: &Command) -> Result<String> {
    let mut page = Page::of(command)?;
    let man = Man::new(command.clone());
    page.add(|text| man.render_options_section(text))?;
    let overview = format!("{}({SECTION})", whole_name(overview));
    page.end(&sections::of_command(command.get_name(), &overview))
}

fn commands(overview: &Command) -> impl Iterator<Item = &Command> {
    overview
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
}

/// Such as `xdp-dedup-run`.
fn whole_name(command: &Command) -> &str {
    command.get_display_name().unwrap_or(command.get_name())
}

/// A page while it is put together.
struct Page {
    text: String,
}

impl Page {
    /// Begins the page of a command.
    fn of(command: &Command) -> Result<Self> {
        let man = Man::new(command.clone());
        let mut page = Self {
            text: String::new(),
        };
        let title = title(&whole_name(command).to_uppercase(), &date());
        page.add(|text| title.to_writer(text))?;
        page.add(|text| man.render_name_section(text))?;
        page.add(|text| man.render_synopsis_section(text))?;
        page.add(|text| man.render_description_section(text))?;
        Ok(page)
    }

    /// Adds a section.
    fn add(&mut self, render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> Result<()> {
        self.add_lines(render, |_| true)
    }

    /// Adds a section without its heading.
    fn add_beneath(
        &mut self,
        render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
    ) -> Result<()> {
        self.add_lines(render, |line| !line.starts_with(".SH "))
    }

    fn add_lines(
        &mut self,
        render: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut section = Vec::new();
        render(&mut section)?;
        // Each section defines what an apostrophe is; once is enough.
        let begun = !self.text.is_empty();
        let defines = |line: &str| line.starts_with(".ie ") || line.starts_with(".el ");
        for line in String::from_utf8(section)?.lines() {
            if wanted(line) && !(begun && defines(line)) {
                self.text.push_str(names_in_bold(line).trim_end());
                self.text.push('\n');
            }
        }
        Ok(())
    }

    fn heading(&mut self, title: &str) {
        let title = title.to_uppercase();
        self.text.push_str(&format!(".SH \"{title}\"\n"));
    }

    fn paragraph(&mut self) {
        self.text.push_str(".PP\n");
    }

    fn end(mut self, sections: &Roff) -> Result<String> {
        self.add(|text| sections.to_writer(text))?;
        // Before possible values, where a blank line is meant: linters would have it said like this.
        Ok(self.text.replace("\n.br\n\n.br\n", "\n.sp\n"))
    }
}

/// The first line. The generator leaves out what is empty, and what follows would move up.
fn title(name: &str, date: &str) -> Roff {
    let date = if date.is_empty() { "\"\"" } else { date };
    let source = concat!("xdp-dedup ", env!("CARGO_PKG_VERSION"));
    let mut title = Roff::new();
    title.control("TH", [name, SECTION, date, source, MANUAL]);
    title
}

/// The day that whoever packages it gives, so that the same source makes the same page; else none.
fn date() -> String {
    let seconds = env::var(EPOCH).ok().and_then(|text| text.parse().ok());
    let time = seconds.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    // Its first ten characters are the day: 2026-11-22T15:32:01Z.
    time.map_or_else(String::new, |time| {
        let text = humantime::format_rfc3339_seconds(time).to_string();
        text.chars().take(10).collect()
    })
}

/// What stands between backquotes, which a terminal would show as opening quotes.
fn names_in_bold(line: &str) -> String {
    let parts: Vec<_> = line.split('`').collect();
    // An even number of parts: a backquote without its fellow.
    if line.starts_with('.') || parts.len() % 2 == 0 {
        return line.to_owned();
    }
    let mut text = String::new();
    for (number, part) in parts.iter().enumerate() {
        match number % 2 {
            0 => text.push_str(part),
            _ => text.push_str(&format!("\\fB{part}\\fR")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_bold() {
        assert_eq!(names_in_bold("`run` and `man`"), r"\fBrun\fR and \fBman\fR");
        for line in ["a ` b", ".SH `run`", "none"] {
            assert_eq!(names_in_bold(line), line);
        }
    }
}
