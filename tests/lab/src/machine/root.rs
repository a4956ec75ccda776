//! A machine's file system.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Result;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, mkdir, pivot_root};

/// What a machine's file system is made of; every path is ready, because a fork must not allocate.
pub(super) struct Root {
    mount_point: CString,
    upper: CString,
    work: CString,
    root: CString,
    options: CString,
    inside: [(&'static CStr, CString, MsFlags); 4],
}

impl Root {
    pub(super) fn new(system: &Path) -> Result<Self> {
        let mount_point = system.join("machine");
        let path = |path: &Path| CString::new(path.as_os_str().as_bytes());
        let [upper, work, root] = ["upper", "work", "root"].map(|name| mount_point.join(name));
        // overlayfs takes its options apart at commas and colons.
        let shown = |path: &Path| {
            let text = path.to_string_lossy();
            text.replace('\\', "\\\\")
                .replace(',', "\\,")
                .replace(':', "\\:")
        };
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            shown(&system.join("root")),
            shown(&upper),
            shown(&work)
        );
        Ok(Self {
            options: CString::new(options)?,
            inside: [
                (c"proc", path(&root.join("proc"))?, MsFlags::empty()),
                (c"sysfs", path(&root.join("sys"))?, MsFlags::MS_RDONLY),
                (c"tmpfs", path(&root.join("run"))?, MsFlags::empty()),
                (
                    c"/dev",
                    path(&root.join("dev"))?,
                    MsFlags::MS_BIND | MsFlags::MS_REC,
                ),
            ],
            mount_point: path(&mount_point)?,
            upper: path(&upper)?,
            work: path(&work)?,
            root: path(&root)?,
        })
    }

    /// Makes it the root of the calling process, alone in its mount namespace.
    pub(super) fn enter(&self) -> io::Result<()> {
        let nothing = None::<&str>;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, c"/", nothing, private, nothing)?;
        let memory = Some(c"tmpfs");
        mount(
            memory,
            self.mount_point.as_c_str(),
            memory,
            MsFlags::empty(),
            nothing,
        )?;
        for folder in [&self.upper, &self.work, &self.root] {
            mkdir(
                folder.as_c_str(),
                Mode::S_IRWXU | Mode::from_bits_truncate(0o055),
            )?;
        }
        let overlay = Some(c"overlay");
        mount(
            overlay,
            self.root.as_c_str(),
            overlay,
            MsFlags::empty(),
            Some(self.options.as_c_str()),
        )?;
        for (kind, at, flags) in &self.inside {
            mount(Some(*kind), at.as_c_str(), Some(*kind), *flags, nothing)?;
        }
        // pivot_root(2): old and new root may lie in the same place, one above the other.
        chdir(self.root.as_c_str())?;
        pivot_root(c".", c".")?;
        umount2(c".", MntFlags::MNT_DETACH)?;
        chdir(c"/")?;
        Ok(())
    }
}
