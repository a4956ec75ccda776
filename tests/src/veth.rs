//! Cables between namespaces: veth pairs, and what stands at their ends.

use std::ffi::c_char;
use std::fmt;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;

use crate::namespace::Namespace;

/// A MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// How an XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the stack, before anything else sees the frame.
    Generic,
}

/// One end of a veth pair.
#[derive(Clone, Debug)]
pub struct End {
    /// The namespace that it stands in.
    pub namespace: Namespace,
    /// The interface's name, at most 15 bytes.
    pub name: &'static str,
    /// Its MAC address.
    pub mac: Mac,
}

impl End {
    /// An end that [`join`] is to make.
    pub fn new(namespace: &Namespace, name: &'static str, mac: [u8; 6]) -> Self {
        Self {
            namespace: namespace.clone(),
            name,
            mac: Mac(mac),
        }
    }

    /// Gives it an address, which serves at once.
    ///
    /// # Errors
    ///
    /// Where `ip` refuses.
    pub fn address(&self, address: impl Into<IpAddr>, prefix_length: u8) -> Result<()> {
        let address = address.into();
        let no_detection = if address.is_ipv6() { "nodad" } else { "" };
        let name = self.name;
        self.ip(&format!(
            "addr add {address}/{prefix_length} dev {name} {no_detection}"
        ))
    }

    /// Makes it know a neighbour for good, so that nobody has to be asked.
    ///
    /// # Errors
    ///
    /// Where `ip` refuses.
    pub fn neighbour(&self, address: impl Into<IpAddr>, mac: Mac) -> Result<()> {
        let (address, name) = (address.into(), self.name);
        self.ip(&format!(
            "neigh replace {address} lladdr {mac} dev {name} nud permanent"
        ))
    }

    /// Sets its MTU, in bytes.
    ///
    /// # Errors
    ///
    /// Where `ip` refuses.
    pub fn mtu(&self, bytes: u32) -> Result<()> {
        self.ip(&format!("link set {} mtu {bytes}", self.name))
    }

    /// Whether an XDP program is attached to it, and how.
    ///
    /// # Errors
    ///
    /// Where `ip` refuses.
    pub fn xdp(&self) -> Result<Option<XdpMode>> {
        let shown = self.namespace.ip(&format!("link show dev {}", self.name))?;
        let word = |wanted| shown.split_whitespace().any(|word| word == wanted);
        Ok(if word("xdp") {
            Some(XdpMode::Native)
        } else if word("xdpgeneric") {
            Some(XdpMode::Generic)
        } else if shown.contains("xdp") {
            bail!("XDP of a kind that is unknown here: {shown}")
        } else {
            None
        })
    }

    /// Its number in its namespace.
    ///
    /// # Errors
    ///
    /// Where it is gone.
    pub fn index(&self) -> Result<u32> {
        self.namespace
            .inside(|| if_nametoindex(self.name))?
            .with_context(|| format!("no interface {}", self.name))
    }

    /// Switches transmit checksum offload. With it on, as it is at first, a datagram from a socket
    /// here arrives with the partial checksum only.
    ///
    /// # Errors
    ///
    /// Where the driver refuses.
    pub fn checksum_offload(&self, on: bool) -> Result<()> {
        self.namespace
            .inside(|| self.set_checksum_offload(on))?
            .with_context(|| format!("checksum offload of {}", self.name))
    }

    fn set_checksum_offload(&self, on: bool) -> Result<()> {
        // linux/ethtool.h: struct ethtool_value, ETHTOOL_STXCSUM.
        const SET_TRANSMIT_CHECKSUM: u32 = 0x17;
        self.ethtool(&mut [SET_TRANSMIT_CHECKSUM, u32::from(on)])?;
        Ok(())
    }

    /// Switches a feature, by its name in `ethtool -k`.
    ///
    /// # Errors
    ///
    /// Where the kernel does not have it, or the driver does not let it be switched.
    pub fn feature(&self, feature: &str, on: bool) -> Result<()> {
        self.namespace
            .inside(|| self.set_feature(feature, on))?
            .with_context(|| format!("{feature} of {}", self.name))
    }

    fn set_feature(&self, feature: &str, on: bool) -> Result<()> {
        // linux/ethtool.h: struct ethtool_gstrings, ETHTOOL_GSTRINGS, ETH_SS_FEATURES; struct
        // ethtool_sfeatures, ETHTOOL_SFEATURES.
        const GET_STRINGS: u32 = 0x1b;
        const FEATURES: u32 = 4;
        const STRING_WORDS: usize = 32 / 4;
        const SET_FEATURES: u32 = 0x3b;
        // The kernel writes as many as it has, which is less than a hundred.
        let mut strings = vec![0; 3 + 1024 * STRING_WORDS];
        strings[..2].copy_from_slice(&[GET_STRINGS, FEATURES]);
        self.ethtool(&mut strings)?;
        let count = strings[2] as usize;
        let name_of = |words: &[u32]| -> Vec<u8> {
            let bytes = words.iter().flat_map(|word| word.to_ne_bytes());
            bytes.take_while(|byte| *byte != 0).collect()
        };
        let mut names = strings[3..].chunks(STRING_WORDS).take(count);
        let bit = names
            .position(|words| name_of(words) == feature.as_bytes())
            .context("this kernel has no such feature")?;

        // Of each 32 features a word that says which are meant, and one with their values.
        let blocks = count.div_ceil(32);
        let mut request = vec![0; 2 + 2 * blocks];
        request[..2].copy_from_slice(&[SET_FEATURES, u32::try_from(blocks)?]);
        request[2 + 2 * (bit / 32)] = 1 << (bit % 32);
        request[3 + 2 * (bit / 32)] = u32::from(on) << (bit % 32);
        if self.ethtool(&mut request)? != 0 {
            bail!("it cannot be switched");
        }
        Ok(())
    }

    /// Hands a command of `ethtool` and its data to the kernel, which answers in their place.
    fn ethtool(&self, data: &mut [u32]) -> Result<i32> {
        let mut name = [0; libc::IFNAMSIZ];
        // The last byte stays zero: the name ends there at the latest.
        for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(self.name.bytes()) {
            *to = from as c_char;
        }
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru {
                ifru_data: data.as_mut_ptr().cast(),
            },
        };
        let socket = UdpSocket::bind("[::]:0")?;
        // SAFETY: SIOCETHTOOL reads and writes a struct ifreq whose data begins with the command; each
        // caller has made room for all that the kernel writes for its own. Both outlive the call.
        let result =
            unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        Ok(Errno::result(result)?)
    }

    fn ip(&self, words: &str) -> Result<()> {
        self.namespace.ip(words).map(drop)
    }
}

/// A server's namespace with the interface `server0`, the end of a cable whose other end is `relay0`,
/// in the same namespace.
///
/// # Errors
///
/// As for [`join`] and [`Namespace::new`].
pub fn cable() -> Result<(Namespace, End)> {
    let here = Namespace::new("server")?;
    let end = End::new(&here, "server0", [2, 0, 0, 0, 0, 1]);
    join(&end, &End::new(&here, "relay0", [2, 0, 0, 0, 0, 2]))?;
    Ok((here, end))
}

/// Makes a veth pair of these ends, and takes both up.
///
/// # Errors
///
/// Where `ip` refuses, such as in a kernel without veth.
pub fn join(one: &End, other: &End) -> Result<()> {
    one.ip(&format!(
        "link add {} address {} type veth peer name {} address {} netns {}",
        one.name,
        one.mac,
        other.name,
        other.mac,
        other.namespace.path()
    ))?;
    for end in [one, other] {
        end.ip(&format!("link set {} up", end.name))?;
    }
    Ok(())
}
