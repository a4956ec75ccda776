//! The capture that `--write` makes of the frames that pass: a pcap file, whole or not there at all.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufWriter, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    fcntl::{AT_FDCWD, AtFlags},
    libc::O_TMPFILE,
    unistd::linkat,
};
use tempfile::NamedTempFile;

use super::capture::{Frame, MAX_FRAME, Precision, ReceivedAt};

/// Permissions of a new file, before the umask.
const MODE: u32 = 0o666;

/// A pcap file being written under no name, or a temporary one. Dropping it leaves nothing behind.
pub struct OutputFile {
    path: PathBuf,
    file: BufWriter<Unfinished>,
    precision: Precision,
}

impl OutputFile {
    /// Starts the file that will be `path`. With `precision` it tells its times.
    ///
    /// # Errors
    ///
    /// Where `path` is the capture that is read, or something else than a file, or its folder takes
    /// no files.
    pub fn create(path: &Path, capture: &fs::Metadata, precision: Precision) -> Result<Self> {
        // Through symbolic links: the file that they lead to is the one to replace.
        let path = match fs::canonicalize(path) {
            Ok(existing) => {
                let metadata = fs::metadata(&existing)?;
                ensure!(metadata.is_file(), "it is there already, and is no file");
                if (metadata.dev(), metadata.ino()) == (capture.dev(), capture.ino()) {
                    bail!("it is the capture that is replayed: name another file");
                }
                existing
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => return Err(error.into()),
        };
        ensure!(path.file_name().is_some(), "it names no file");
        let mut file = BufWriter::new(Unfinished::create(folder(&path))?);
        file.write_all(&header(precision))?;
        Ok(Self {
            path,
            file,
            precision,
        })
    }

    /// Writes a frame, as much of it as was captured.
    ///
    /// # Errors
    ///
    /// Where the file cannot be written to, or the time is beyond what pcap can tell (2106).
    pub fn write(&mut self, frame: &Frame<'_>, time: ReceivedAt) -> Result<()> {
        let seconds = u32::try_from(time.nanoseconds / 1_000_000_000)
            .ok()
            .context("pcap tells no time after 2106")?;
        let fraction = (time.nanoseconds % 1_000_000_000) as u32;
        let fraction = match self.precision {
            Precision::Microseconds => fraction / 1_000,
            Precision::Nanoseconds => fraction,
        };
        for field in [
            seconds,
            fraction,
            frame.bytes.len() as u32,
            frame.original_length,
        ] {
            self.file.write_all(&field.to_le_bytes())?;
        }
        self.file.write_all(frame.bytes)?;
        Ok(())
    }

    /// Puts the file in its place, instead of what was there.
    ///
    /// # Errors
    ///
    /// Where its last bytes cannot be written, or it cannot be renamed.
    pub fn finish(self) -> Result<()> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok(file.rename_to(&self.path)?)
    }
}

/// A pcap file's header: magic number, version 2.4, two unused numbers, the longest frame, Ethernet.
fn header(precision: Precision) -> [u8; 24] {
    let magic: u32 = match precision {
        Precision::Microseconds => 0xa1b2_c3d4,
        Precision::Nanoseconds => 0xa1b2_3c4d,
    };
    let mut header = [0; 24];
    header[..4].copy_from_slice(&magic.to_le_bytes());
    header[4..6].copy_from_slice(&2_u16.to_le_bytes());
    header[6..8].copy_from_slice(&4_u16.to_le_bytes());
    header[16..20].copy_from_slice(&(MAX_FRAME as u32).to_le_bytes());
    header[20..24].copy_from_slice(&1_u32.to_le_bytes());
    header
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// A file in the folder where it will stay.
enum Unfinished {
    /// Without a name: gone with this process, even if that is killed.
    Nameless(File),
    /// For file systems without nameless files, such as NFS.
    Named(NamedTempFile),
}

impl Unfinished {
    fn create(folder: &Path) -> io::Result<Self> {
        let nameless = OpenOptions::new()
            .write(true)
            .custom_flags(O_TMPFILE)
            .mode(MODE)
            .open(folder);
        match nameless {
            Ok(file) => Ok(Self::Nameless(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
            Err(_) => Ok(Self::Named(Self::named(folder)?)),
        }
    }

    fn named(folder: &Path) -> io::Result<NamedTempFile> {
        tempfile::Builder::new()
            .prefix(".xdp-dedup-")
            .suffix(".pcap")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(folder)
    }

    fn rename_to(self, path: &Path) -> io::Result<()> {
        let file = match self {
            Self::Named(file) => return file.persist(path).map(drop).map_err(|error| error.error),
            Self::Nameless(file) => file,
        };
        // No call links a file over another: it gets a name of its own first, unused until now.
        let named = Self::named(folder(path))?.into_temp_path();
        fs::remove_file(&named)?;
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        linkat(
            AT_FDCWD,
            nameless.as_str(),
            AT_FDCWD,
            &*named,
            AtFlags::AT_SYMLINK_FOLLOW,
        )?;
        named.persist(path).map_err(|error| error.error)
    }
}

impl io::Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Nameless(file) => file.write(bytes),
            Self::Named(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
