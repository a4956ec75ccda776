//! Reads apt's lists of package sources, in both of their formats (sources.list(5)), and finds the
//! mirror of Debian's archive among them.

use std::fs;
use std::path::{Path, PathBuf};

/// A mirror, and the keys that this machine trusts for it.
#[derive(Debug, PartialEq)]
pub struct Mirror {
    pub uri: String,
    /// A keyring file; none means apt's own trusted keys.
    pub keyring: Option<String>,
}

/// One list of sources: its format goes by its name.
pub struct List {
    name: PathBuf,
    text: String,
}

/// What one line or one stanza declares.
#[derive(Default)]
struct Entry {
    enabled: bool,
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    keyring: Option<String>,
}

/// Reads the lists under `/etc/apt`, in apt's order; those that cannot be read count as absent.
pub fn read(etc_apt: &Path) -> Vec<List> {
    let mut names = vec![etc_apt.join("sources.list")];
    let parts = fs::read_dir(etc_apt.join("sources.list.d"));
    let mut parts: Vec<_> = parts
        .into_iter()
        .flatten()
        .flatten()
        .map(|part| part.path())
        .collect();
    parts.sort();
    names.extend(parts);
    names
        .into_iter()
        .filter(|name| has_extension(name, "list") || has_extension(name, "sources"))
        .filter_map(|name| {
            Some(List {
                text: fs::read_to_string(&name).ok()?,
                name,
            })
        })
        .collect()
}

/// Finds the first mirror of Debian's archive.
pub fn debian_mirror(lists: &[List]) -> Option<Mirror> {
    let entries = lists
        .iter()
        .flat_map(|list| match has_extension(&list.name, "sources") {
            true => stanzas(&list.text),
            false => lines(&list.text),
        });
    entries
        .into_iter()
        .filter(|entry| entry.enabled)
        .find_map(|entry| {
            let uri = entry
                .uris
                .iter()
                .find(|uri| is_debian(uri, &entry))?
                .clone();
            Some(Mirror {
                uri,
                keyring: entry.keyring,
            })
        })
}

/// Other archives have a suite named as Debian's too, but they neither lie in a folder `debian`
/// with a component `main`, nor come with updates or backports of the suite.
fn is_debian(uri: &str, entry: &Entry) -> bool {
    let named_so = uri.trim_end_matches('/').ends_with("/debian");
    let ends = |end: &str| entry.suites.iter().any(|suite| suite.ends_with(end));
    entry.components.iter().any(|component| component == "main")
        && !ends("-security")
        && (named_so || ends("-updates") || ends("-backports"))
}

/// The one-line format: `deb [option=value ...] uri suite component ...`
fn lines(text: &str) -> Vec<Entry> {
    text.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default();
    let rest = line.trim_start().strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None; // deb-src
    }
    let rest = rest.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut fields = words(rest).into_iter();
    Some(Entry {
        enabled: true,
        uris: vec![fields.next()?],
        suites: vec![fields.next()?],
        components: fields.collect(),
        keyring: options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .and_then(keyring_file),
    })
}

/// The deb822 format: stanzas of `Field: value`, where an indented line goes on with the last.
fn stanzas(text: &str) -> Vec<Entry> {
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines
        .split(|line| line.trim().is_empty())
        .map(stanza)
        .collect()
}

fn stanza(lines: &[&str]) -> Entry {
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in lines {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }
    let value = |wanted: &str| {
        fields
            .iter()
            .find(|(name, _)| name == wanted)
            .map_or("", |(_, value)| value.as_str())
    };
    let enabled = value("enabled").trim().to_ascii_lowercase();
    let disabled = matches!(enabled.as_str(), "no" | "false" | "0");
    Entry {
        enabled: !disabled && words(value("types")).iter().any(|kind| kind == "deb"),
        uris: words(value("uris")),
        suites: words(value("suites")),
        components: words(value("components")),
        keyring: keyring_file(value("signed-by")),
    }
}

/// Signed-By may also hold fingerprints or a whole key; then apt's own trusted keys must do.
fn keyring_file(value: &str) -> Option<String> {
    let value = value.trim();
    (value.starts_with('/') && !value.contains(char::is_whitespace)).then(|| value.to_owned())
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn has_extension(name: &Path, extension: &str) -> bool {
    name.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> Option<(String, Option<String>)> {
        let list = List {
            name: name.into(),
            text: text.to_owned(),
        };
        debian_mirror(&[list]).map(|mirror| (mirror.uri, mirror.keyring))
    }

    #[test]
    fn the_mirror_of_debian_is_found_among_one_line_entries() {
        for (text, expected) in [
            ("", None),
            (
                "deb http://a.test/debian bookworm main",
                Some(("http://a.test/debian", None)),
            ),
            (
                "deb http://a.test/debian/ stable contrib main # x",
                Some(("http://a.test/debian/", None)),
            ),
            ("# deb http://a.test/debian bookworm main", None),
            ("deb-src http://a.test/debian bookworm main", None),
            ("deb http://a.test/debian bookworm", None),
            (
                "deb http://a.test/debian-security bookworm-security main",
                None,
            ),
            ("deb http://tool.test/linux/debian bookworm stable", None),
            ("deb http://tool.test/apt bookworm main", None),
            (
                "deb http://tool.test/apt bookworm main\n\
                 deb http://b.test/copy bookworm main\n\
                 deb http://b.test/copy bookworm-updates main",
                Some(("http://b.test/copy", None)),
            ),
            (
                "deb [arch=amd64 signed-by=/k.gpg] http://a.test/debian bookworm main",
                Some(("http://a.test/debian", Some("/k.gpg"))),
            ),
            (
                "deb [signed-by=0123ABCD] http://a.test/debian bookworm main",
                Some(("http://a.test/debian", None)),
            ),
            ("deb [arch=amd64 http://a.test/debian bookworm main", None),
        ] {
            let expected = expected.map(|(uri, key)| (uri.to_owned(), key.map(str::to_owned)));
            assert_eq!(found("/etc/apt/sources.list", text), expected, "{text}");
        }
    }

    #[test]
    fn the_mirror_of_debian_is_found_among_deb822_stanzas() {
        let stanza = "Types: deb\nURIs: http://a.test/debian\nSuites: bookworm bookworm-updates\n\
                      Components: main\nSigned-By: /k.gpg\n";
        let here = Some(("http://a.test/debian", Some("/k.gpg")));
        let without_key = Some(("http://a.test/debian", None));
        for (text, expected) in [
            (String::new(), None),
            (stanza.to_owned(), here),
            (stanza.to_lowercase(), here),
            (format!("# http://c.test\n\n\n{stanza}"), here),
            (stanza.replace("Types: deb", "Types: deb-src deb"), here),
            (stanza.replace("Types: deb", "Types: deb-src"), None),
            (format!("{stanza}Enabled: no\n"), None),
            (format!("{stanza}Enabled: yes\n"), here),
            (stanza.replace("URIs: ", "URIs:\n#x\n "), here),
            (
                stanza.replace("/k.gpg", "\n -----BEGIN PGP-----\n .\n x"),
                without_key,
            ),
            (
                stanza.replace("bookworm-updates", "bookworm-security"),
                None,
            ),
            (
                format!("Types: deb\nURIs: http://tool.test\nSuites: ./\n\n{stanza}"),
                here,
            ),
        ] {
            let expected = expected.map(|(uri, key)| (uri.to_owned(), key.map(str::to_owned)));
            assert_eq!(found("debian.sources", &text), expected, "{text}");
        }
    }
}
