//! Another kernel: Debian's own one in QEMU, without KVM, with programs of the lab's in an initramfs.
//! Its packages are cpio, findutils, kmod, linux-image-cloud-amd64, mount and qemu-system-x86.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use crate::machine::Machine;

/// Most time that a guest may take: every instruction is emulated.
const PATIENCE: Duration = Duration::from_secs(180);

/// What a guest's script told: by name, the exit code of each command and what it printed.
#[derive(Debug)]
pub struct Told(BTreeMap<String, (u8, String)>);

impl Told {
    /// What a command printed.
    ///
    /// # Errors
    ///
    /// With that, where it failed; and where it did not run.
    pub fn good(&self, name: &str) -> Result<&str> {
        let (code, text) = self.any(name)?;
        ensure!(code == 0, "{name} failed ({code}): {}", text.trim());
        Ok(text)
    }

    /// Exit code and output of a command.
    ///
    /// # Errors
    ///
    /// Where it did not run.
    pub fn any(&self, name: &str) -> Result<(u8, &str)> {
        let told = self.0.get(name).with_context(|| format!("no {name}"))?;
        Ok((told.0, &told.1))
    }

    /// What the console showed, between `<<< NAME CODE` and `>>>`.
    fn read(console: &str) -> Self {
        let mut all = BTreeMap::new();
        let mut open: Option<(String, u8, String)> = None;
        for line in console.lines().map(|line| line.trim_end_matches('\r')) {
            if let Some(words) = line.strip_prefix("<<< ") {
                open = words
                    .split_once(' ')
                    .and_then(|(name, code)| Some((name, code.parse().ok()?)))
                    .map(|(name, code): (&str, u8)| (name.to_owned(), code, String::new()));
            } else if line == ">>>" {
                if let Some((name, code, text)) = open.take() {
                    all.insert(name, (code, text));
                }
            } else if let Some((_, _, text)) = &mut open {
                text.push_str(line);
                text.push('\n');
            }
        }
        Self(all)
    }
}

/// Boots the machine's kernel with these programs of the machine's and these files, and plays a script
/// in it, to its end: `tell NAME COMMAND ...` in it runs a command. `host` is a program of this
/// system's, which is `/host/NAME` in the guest.
///
/// # Errors
///
/// With the end of the console, where the guest does not come to the script's end.
pub fn play(
    machine: &Machine,
    programs: &[&str],
    files: &[(&str, Vec<u8>)],
    host: &Path,
    script: &str,
) -> Result<Told> {
    for (path, content) in files {
        machine.write(&format!("/run/guest{path}"), content)?;
    }
    machine.write("/run/guest/script", script)?;
    let init = include_str!("guest/init.sh");
    for (path, content) in [
        ("/run/guest/init", init.to_owned()),
        ("/run/guest/usr/bin/xdp-dedup", lend(machine, host)?),
    ] {
        machine.write(path, content)?;
        machine.run("chmod", ["755", path])?;
    }
    let make = include_str!("guest/initramfs.sh");
    machine.write("/run/initramfs.sh", make)?;
    machine.run("bash", [&["/run/initramfs.sh"], programs].concat())?;
    let (kernel, _) = kernel(machine)?;
    let mut qemu = machine.start(
        "qemu-system-x86_64",
        [
            "-accel",
            "tcg",
            "-cpu",
            "max",
            "-m",
            "512",
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            "-serial",
            "stdio",
            "-kernel",
            &kernel,
            "-initrd",
            "/run/initramfs",
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable no_timer_check \
             random.trust_cpu=on rdinit=/init",
        ],
    )?;
    qemu.wait(PATIENCE)?;
    let told = Told::read(&qemu.log());
    if told.any("end").is_err() {
        bail!("the guest ended before its script: {}", qemu.last_words());
    }
    Ok(told)
}

/// Where the machine has its kernel, and which version it is.
///
/// # Errors
///
/// Where it has none.
pub fn kernel(machine: &Machine) -> Result<(String, String)> {
    const IMAGE: &str = "vmlinuz-";
    let names = fs::read_dir(machine.path("/boot"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let image = names
        .filter(|name| name.starts_with(IMAGE))
        .max()
        .context("the lab's system has no kernel")?;
    let version = image.trim_start_matches(IMAGE).to_owned();
    Ok((format!("/boot/{image}"), version))
}

/// Puts a program of this system's and the libraries that it loads into the guest: this system may have
/// newer ones than the guest. Hands back the script that starts it there.
fn lend(machine: &Machine, program: &Path) -> Result<String> {
    // As ldd does it; a program that loads none prints something else.
    let listed = Command::new(program)
        .env("LD_TRACE_LOADED_OBJECTS", "1")
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries: Vec<PathBuf> = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .filter(|path| path.is_file())
        .collect();
    let mut loader = None;
    for file in libraries.iter().map(PathBuf::as_path).chain([program]) {
        let name = file.file_name().context("a file without a name")?;
        let name = name.to_string_lossy();
        let place = format!("/run/guest/host/{name}");
        let content = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        machine.write(&place, content)?;
        machine.run("chmod", ["755", &place])?;
        if name.starts_with("ld-") {
            loader = Some(name.into_owned());
        }
    }
    let name = program.file_name().context("a program without a name")?;
    let name = name.to_string_lossy();
    let loader = loader.map_or(String::new(), |loader| {
        format!("/host/{loader} --library-path /host ")
    });
    Ok(format!("#!/bin/bash\nexec {loader}/host/{name} \"$@\"\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_off_the_console_and_what_is_between_them_is_not() -> Result<()> {
        let console =
            "[ 1.0] noise\r\n<<< one 0\r\na\r\n\r\nb\r\n>>>\r\nnoise\r\n<<< two 243\r\n>>>\r\n";
        let told = Told::read(console);
        assert_eq!(told.good("one")?, "a\n\nb\n");
        assert_eq!(told.any("two")?, (243, ""));
        assert!(told.good("two").is_err() && told.any("three").is_err());
        Ok(())
    }
}
