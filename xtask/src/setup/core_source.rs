//! The source of the pinned release's core library, at target/setup/library: cargo compiles it for
//! the BPF target (`-Z build-std=core`), for which no compiled one exists. It comes from where it
//! costs least: the toolchain, a place the developer names, rustup, or Debian's archive.

use std::env;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};

use super::debian::{self, Wanted};
use super::ladder::{Attempt, Rung, climb};
use super::{clear, rustc};
use crate::workspace::{self, RUST_VERSION};
use crate::{process, say};

/// Names the source where neither rustup nor apt can download.
const VARIABLE: &str = "XDP_DEDUP_RUST_SRC";

/// Without a network rustup may try for minutes; the component is a few MB.
const RUSTUP_LIMIT: Duration = Duration::from_secs(60);

/// Where Debian keeps the pinned release's source.
const DEBIAN_SUITE: &str = "trixie-backports";
const DEBIAN_VERSION: &str = "1.95.0+dfsg1-2~bpo13+1";
const DEBIAN_LIBRARY: &str = "usr/src/rustc-1.95.0/library";

/// The release after the pinned one.
const NEXT_RELEASE: &str = "1.96.0";

/// A file that every `library` folder has.
const PROBE: &str = "core/src/lib.rs";

/// Where the set-up unpacks, before the process id.
const STAGING: &str = "unpack-";

/// A source as a rung of the ladder hands it over.
enum Source {
    /// It stays where it is.
    Elsewhere(PathBuf),
    /// It was unpacked beside its place, and is to be moved there.
    Unpacked(PathBuf),
}

/// Puts the source in its place, unless it is there already.
pub fn ensure() -> Result<()> {
    if is_ready(&workspace::core_source(), &marker()) {
        return Ok(());
    }
    sweep()?;
    // A name of its own: what an interrupted set-up had started may still be unpacking.
    let staging = workspace::setup_dir().join(format!("{STAGING}{}", std::process::id()));
    fs::create_dir_all(&staging).with_context(|| format!("cannot make {}", staging.display()))?;
    let result = obtain(&staging).and_then(|(rung, source)| {
        install(source, &staging)?;
        say(format_args!(
            "core's source of rustc {RUST_VERSION}: took {rung}"
        ));
        Ok(())
    });
    result.and(clear(&staging))
}

/// Removes what interrupted set-ups left, as far as it lets itself be removed.
fn sweep() -> Result<()> {
    let dir = workspace::setup_dir();
    for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(STAGING)
            && let Err(error) = clear(&entry.path())
        {
            say(format_args!("left as it is: {error:#}"));
        }
    }
    Ok(())
}

/// Says of which release the source is. Written last: without it the source counts as absent.
fn marker() -> PathBuf {
    workspace::setup_dir().join("library.version")
}

fn is_ready(library: &Path, marker: &Path) -> bool {
    fs::read_to_string(marker).is_ok_and(|version| version.trim() == RUST_VERSION)
        && library.join(PROBE).is_file()
}

fn obtain(staging: &Path) -> Result<(&'static str, Source)> {
    // First of all, so that a slip of the pen is told even where it would not have been needed.
    let named = named(env::var_os(VARIABLE).map(PathBuf::from))?;
    let rungs = vec![
        Rung::new("the toolchain's own rust-src", || Ok(from_sysroot().into())),
        Rung::new("what XDP_DEDUP_RUST_SRC names", || match named {
            None => Ok(Attempt::Missing("not set".to_owned())),
            // Asked for by name: to take another one instead would be a surprise.
            Some(path) => match from_named(&path, staging) {
                Ok(source) => Ok(Attempt::Found(source)),
                Err(error) => Err(unfit(&path, &error)),
            },
        }),
        Rung::new("rustup component add rust-src", || Ok(from_rustup().into())),
        Rung::new("Debian's package rust-src", || {
            Ok(from_debian(staging).into())
        }),
    ];
    climb(rungs, |tried| {
        anyhow!(
            "the kernel program needs core's source of rustc {RUST_VERSION}, and no way led to it; \
             tried, in this order:{tried}\nwhere rustup can download, run `rustup component add \
             rust-src --toolchain {RUST_VERSION}`; else set {VARIABLE} to the `library` folder of \
             that release's source, or to a .tar.xz that holds it at its top"
        )
    })
}

fn named(value: Option<PathBuf>) -> Result<Option<PathBuf>> {
    value
        .map(|path| {
            path.canonicalize()
                .map_err(|error| unfit(&path, &error.into()))
        })
        .transpose()
}

fn unfit(path: &Path, why: &Error) -> Error {
    anyhow!(
        "{VARIABLE} is `{}`, which does not serve: {why:#}; let it name the `library` folder of \
         rustc {RUST_VERSION}'s source, or a .tar.xz that holds it at its top, or unset it",
        path.display()
    )
}

fn from_sysroot() -> Result<Source> {
    let sysroot = rustc(&["--print", "sysroot"])?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    check(&library)?;
    Ok(Source::Elsewhere(library))
}

fn from_named(path: &Path, staging: &Path) -> Result<Source> {
    if path.is_dir() {
        check(path)?;
        return Ok(Source::Elsewhere(path.to_owned()));
    }
    process::require(&["tar", "xz"])?;
    let mut unpack = Command::new("tar");
    // The files are the developer's, also where root unpacks them.
    unpack
        .arg("--no-same-owner")
        .arg("-xJf")
        .arg(path)
        .arg("-C")
        .arg(staging);
    process::capture(&mut unpack, Duration::MAX)?;
    let library = staging.join("library");
    check(&library)?;
    Ok(Source::Unpacked(library))
}

fn from_rustup() -> Result<Source> {
    process::require(&["rustup"])?;
    say(format_args!(
        "asking rustup for rust-src of {RUST_VERSION} ..."
    ));
    let mut add = Command::new("rustup");
    add.args(["component", "add", "rust-src", "--toolchain", RUST_VERSION]);
    // A backtrace would bury the reason.
    add.env("RUST_BACKTRACE", "0")
        .current_dir(workspace::root());
    process::capture(&mut add, RUSTUP_LIMIT)?;
    from_sysroot()
}

fn from_debian(staging: &Path) -> Result<Source> {
    let wanted = Wanted {
        suite: DEBIAN_SUITE.to_owned(),
        package: "rust-src",
        version: Some(DEBIAN_VERSION),
        megabytes: 45,
        path: DEBIAN_LIBRARY,
    };
    let library = debian::fetch(&staging.join("apt"), &wanted)?;
    check(&library)?;
    Ok(Source::Unpacked(library))
}

/// Tells whether a folder is the `library` of the pinned release: another's fails to compile with
/// errors that nobody understands.
fn check(library: &Path) -> Result<()> {
    if !library.join(PROBE).is_file() {
        bail!("{} does not exist", library.join(PROBE).display());
    }
    let core = library.join("core/src");
    let mut releases = Releases::default();
    scan(&core, &mut releases).with_context(|| format!("cannot read {}", core.display()))?;
    if !releases.this || releases.later {
        bail!("{} is not of rustc {RUST_VERSION}", library.display());
    }
    Ok(())
}

/// Which releases the source says to have stabilised something.
#[derive(Default)]
struct Releases {
    this: bool,
    later: bool,
}

fn scan(dir: &Path, releases: &mut Releases) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            scan(&entry.path(), releases)?;
        } else if entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "rs")
        {
            let text = fs::read_to_string(entry.path())?;
            let names = |release| text.contains(&format!("since = \"{release}\""));
            releases.this |= names(RUST_VERSION);
            // The second stands for a release that has not branched off yet.
            releases.later |= names(NEXT_RELEASE) || names("CURRENT_RUSTC_VERSION");
        }
    }
    Ok(())
}

/// One rename at the end: an interrupted set-up leaves no half-written library that looks whole.
fn install(source: Source, staging: &Path) -> Result<()> {
    let library = workspace::core_source();
    let ready = match source {
        Source::Unpacked(path) => path,
        Source::Elsewhere(path) => {
            let link = staging.join("link");
            symlink(&path, &link).with_context(|| format!("cannot link to {}", path.display()))?;
            link
        }
    };
    clear(&marker())?;
    clear(&library)?;
    fs::rename(&ready, &library)
        .with_context(|| format!("cannot move core's source to {}", library.display()))?;
    fs::write(marker(), RUST_VERSION)
        .with_context(|| format!("cannot write {}", marker().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_package_is_of_the_pinned_release() {
        assert!(DEBIAN_VERSION.starts_with(&format!("{RUST_VERSION}+")));
        assert!(DEBIAN_LIBRARY.contains(&format!("rustc-{RUST_VERSION}/")));
    }

    /// A folder of this test's own, removed with the value.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let dir = env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
            clear(&dir).unwrap();
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = clear(&self.0);
        }
    }

    #[test]
    fn only_the_pinned_releases_source_is_accepted() {
        for (text, accepted) in [
            ("#[stable(feature = \"f\", since = \"1.95.0\")]", true),
            (
                "since = \"1.95.0\" since = \"1.94.0\" since = \"1.99.0\"",
                true,
            ),
            ("since = \"1.94.0\"", false),
            ("since = \"1.95.0\" since = \"1.96.0\"", false),
            (
                "since = \"1.95.0\" since = \"CURRENT_RUSTC_VERSION\"",
                false,
            ),
        ] {
            let library = Scratch::new("library");
            let deep = library.0.join("core/src/num");
            fs::create_dir_all(&deep).unwrap();
            fs::write(library.0.join(PROBE), "mod num;").unwrap();
            fs::write(deep.join("mod.rs"), text).unwrap();
            assert_eq!(check(&library.0).is_ok(), accepted, "{text}");
        }
    }

    #[test]
    fn the_release_after_the_pinned_one_is_the_next() {
        let minor = |version: &str| version.split('.').nth(1).unwrap().parse::<u32>().unwrap();
        assert_eq!(minor(NEXT_RELEASE), minor(RUST_VERSION) + 1);
    }

    #[test]
    fn a_library_is_ready_only_with_its_marker_and_its_files() {
        let dir = Scratch::new("ready");
        let (library, marker) = (dir.0.join("library"), dir.0.join("marker"));
        assert!(!is_ready(&library, &marker), "nothing there");
        fs::create_dir_all(library.join("core/src")).unwrap();
        fs::write(library.join(PROBE), "").unwrap();
        assert!(
            !is_ready(&library, &marker),
            "interrupted before the marker"
        );
        fs::write(&marker, "1.94.0").unwrap();
        assert!(!is_ready(&library, &marker), "of an earlier pin");
        fs::write(&marker, RUST_VERSION).unwrap();
        assert!(is_ready(&library, &marker));
        fs::remove_file(library.join(PROBE)).unwrap();
        assert!(!is_ready(&library, &marker), "what it links to is gone");
    }

    #[test]
    fn a_variable_that_points_to_nothing_is_an_error() {
        assert!(matches!(named(None), Ok(None)));
        assert!(matches!(named(Some(env::temp_dir())), Ok(Some(_))));
        for value in ["", "/no/such/place"] {
            let error = named(Some(value.into())).unwrap_err().to_string();
            assert!(error.starts_with(VARIABLE), "{error}");
        }
    }
}
