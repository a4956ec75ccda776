//! What `check` says: a line for each thing that it looked at.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct as _};

/// What is looked at, in the order of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The kernel's version.
    Kernel,
    /// The capabilities of this process.
    Capabilities,
    /// The user namespace that they count in.
    UserNamespace,
    /// Whether bpf(2) reaches the kernel.
    BpfCall,
    /// Kernel lockdown.
    Lockdown,
    /// Whether the kernel takes the program and its maps.
    Program,
    /// Whether the loaded program finds a copy.
    TestRun,
    /// Whether it takes frames in several buffers.
    MultiBuffer,
    /// Whether it is compiled.
    Jit,
    /// The BPF file system.
    BpfFileSystem,
    /// The folder on it.
    PinFolder,
    /// Another `run`.
    OtherRun,
    /// The port of the exporter.
    MetricsPort,
    /// Whether the interface is there.
    Interface,
    /// Whether it is up.
    Link,
    /// Its driver.
    Driver,
    /// Whether the program can run in the mode asked for.
    XdpMode,
    /// Its MTU.
    Mtu,
    /// Its receive queues.
    Queues,
    /// The XDP program on it.
    XdpProgram,
    /// GRO of UDP datagrams.
    Gro,
    /// Large receive offload.
    Lro,
    /// Interfaces that see one another's frames.
    Stacking,
}

impl Subject {
    /// The name in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Capabilities => "capabilities",
            Self::UserNamespace => "user_namespace",
            Self::BpfCall => "bpf_call",
            Self::Lockdown => "lockdown",
            Self::Program => "program",
            Self::TestRun => "test_run",
            Self::MultiBuffer => "multi_buffer",
            Self::Jit => "jit",
            Self::BpfFileSystem => "bpf_file_system",
            Self::PinFolder => "pin_folder",
            Self::OtherRun => "other_run",
            Self::MetricsPort => "metrics_port",
            Self::Interface => "interface",
            Self::Link => "link",
            Self::Driver => "driver",
            Self::XdpMode => "xdp_mode",
            Self::Mtu => "mtu",
            Self::Queues => "queues",
            Self::XdpProgram => "xdp_program",
            Self::Gro => "gro",
            Self::Lro => "lro",
            Self::Stacking => "stacking",
        }
    }
}

/// Whether what was found will do; with what to do about it where it will not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It will.
    Ok,
    /// It may, or at a price.
    Warn(String),
    /// `run` would fail, or harm.
    Fail(String),
}

impl Outcome {
    const fn name(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn(_) => "warn",
            Self::Fail(_) => "fail",
        }
    }

    const fn advice(&self) -> Option<&String> {
        match self {
            Self::Ok => None,
            Self::Warn(advice) | Self::Fail(advice) => Some(advice),
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What.
    pub subject: Subject,
    /// On which interface, where it is one's.
    pub interface: Option<String>,
    /// What was found.
    pub found: String,
    /// Whether that will do.
    pub outcome: Outcome,
}

impl Line {
    /// A line of no interface.
    pub fn new(subject: Subject, found: impl Into<String>, outcome: Outcome) -> Self {
        Self {
            subject,
            interface: None,
            found: found.into(),
            outcome,
        }
    }

    /// The same of an interface.
    pub fn of(self, interface: &str) -> Self {
        Self {
            interface: Some(interface.to_owned()),
            ..self
        }
    }

    /// What was looked at, in words.
    fn title(&self) -> String {
        let subject = self.subject.name().replace('_', " ");
        match &self.interface {
            Some(interface) => format!("{interface} {subject}"),
            None => subject,
        }
    }
}

/// One object a line: `{"check":"mtu","interface":"eth0","result":"ok","found":"1500","advice":null}`.
impl Serialize for Line {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_struct("Line", 5)?;
        line.serialize_field("check", self.subject.name())?;
        line.serialize_field("interface", &self.interface)?;
        line.serialize_field("result", self.outcome.name())?;
        line.serialize_field("found", &self.found)?;
        line.serialize_field("advice", &self.outcome.advice())?;
        line.end()
    }
}

/// All lines, in the order of the output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report(pub Vec<Line>);

impl Report {
    /// How many failed.
    pub fn failures(&self) -> usize {
        let failed = |line: &&Line| matches!(line.outcome, Outcome::Fail(_));
        self.0.iter().filter(failed).count()
    }
}

/// For people: `warn  eth0 link   down; take it up: ...`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|line| line.title().len()).max();
        let width = width.unwrap_or_default();
        for line in &self.0 {
            let (outcome, title) = (line.outcome.name(), line.title());
            write!(f, "{outcome:<4}  {title:<width$}  {}", line.found)?;
            match line.outcome.advice() {
                Some(advice) => writeln!(f, "; {advice}")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_looked_at_what_was_found_and_what_to_do() {
        let report = Report(vec![
            Line::new(Subject::Kernel, "Linux 6.18", Outcome::Ok),
            Line::new(
                Subject::Link,
                "down",
                Outcome::Warn("take it up".to_owned()),
            )
            .of("eth0"),
        ]);
        assert_eq!(
            report.to_string(),
            "ok    kernel     Linux 6.18\nwarn  eth0 link  down; take it up\n"
        );
        assert_eq!(report.failures(), 0);
        assert_eq!(
            serde_json::to_string(&report.0[1]).unwrap(),
            r#"{"check":"link","interface":"eth0","result":"warn","found":"down","advice":"take it up"}"#
        );
    }
}
