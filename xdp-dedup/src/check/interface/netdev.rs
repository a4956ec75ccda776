//! What XDP a driver offers, as the kernel tells over generic netlink: the family `netdev`, Linux 6.3
//! (Documentation/netlink/specs/netdev.yaml). No crate has it.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use futures_util::TryStreamExt as _;
use genetlink::GenetlinkHandle;
use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _,
    NlasIterator, Parseable as _, ParseableParametrized, parse_u64,
};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};

const DEV_GET: u8 = 1;
const IFINDEX: u16 = 1;
const XDP_FEATURES: u16 = 3;

/// What a driver offers (`enum netdev_xdp_act`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures(pub u64);

impl XdpFeatures {
    const NAMES: [(u64, &str); 7] = [
        (1, "basic"),
        (1 << 1, "redirect"),
        (1 << 2, "ndo-xmit"),
        (1 << 3, "xsk-zerocopy"),
        (1 << 4, "hw-offload"),
        (1 << 5, "rx-sg"),
        (1 << 6, "ndo-xmit-sg"),
    ];

    /// Whether a program can pass and drop frames.
    pub const fn basic(self) -> bool {
        self.0 & 1 != 0
    }

    /// Whether it gets frames that lie in several buffers.
    pub const fn several_buffers(self) -> bool {
        self.0 & (1 << 5) != 0
    }
}

/// As the kernel's documentation names them.
impl fmt::Display for XdpFeatures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Self::NAMES.iter().filter(|(bit, _)| self.0 & bit != 0);
        let names: Vec<_> = names.map(|(_, name)| *name).collect();
        f.write_str(&names.join(", "))
    }
}

/// A message of the family.
#[derive(Clone, Debug)]
struct Netdev {
    command: u8,
    attributes: Vec<DefaultNla>,
}

impl GenlFamily for Netdev {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Netdev {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Netdev {
    fn parse_with_param(buffer: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes: Result<_, _> = NlasIterator::new(buffer)
            .map(|attribute| DefaultNla::parse(&attribute?))
            .collect();
        Ok(Self {
            command: header.cmd,
            attributes: attributes?,
        })
    }
}

/// What the driver of the interface with this index offers.
///
/// # Errors
///
/// Where the kernel does not tell, such as before Linux 6.3.
pub async fn xdp_features(netlink: &mut GenetlinkHandle, index: u32) -> Result<XdpFeatures> {
    let mut request = NetlinkMessage::from(GenlMessage::from_payload(Netdev {
        command: DEV_GET,
        attributes: vec![DefaultNla::new(IFINDEX, index.to_ne_bytes().to_vec())],
    }));
    request.header.flags = NLM_F_REQUEST;
    let mut answers = netlink.request(request).await?;
    let answer = answers.try_next().await?.context("no answer")?;
    let device = match answer.payload {
        NetlinkPayload::InnerMessage(message) => message.payload,
        NetlinkPayload::Error(error) => return Err(error.to_io().into()),
        other => bail!("an unexpected answer: {other:?}"),
    };
    for attribute in &device.attributes {
        if attribute.kind() == XDP_FEATURES {
            let mut bits = vec![0; attribute.value_len()];
            attribute.emit_value(&mut bits);
            return Ok(XdpFeatures(parse_u64(&bits)?));
        }
    }
    bail!("the answer has no XDP features")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_have_the_kernel_s_names() {
        let veth = XdpFeatures(0x23);
        assert_eq!(veth.to_string(), "basic, redirect, rx-sg");
        assert!(veth.basic() && veth.several_buffers());
        let none = XdpFeatures(0);
        assert!(!none.basic() && !none.several_buffers());
    }
}
