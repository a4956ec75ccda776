//! An interface as the kernel describes it over netlink: also right where `/sys` shows another network
//! namespace's interfaces. Nothing is changed.

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, Result};
use ethtool::{EthtoolAttr, EthtoolChannelAttr, EthtoolFeatureAttr, EthtoolHandle};
use futures_util::{Stream, TryStreamExt as _};
use genetlink::GenetlinkHandle;
use netlink_packet_generic::GenlMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

use super::netdev::{self, XdpFeatures};

/// Most time that the kernel may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the judgement goes by. What the kernel did not tell is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Whether it was taken up.
    pub up: bool,
    /// Whether it has a carrier.
    pub carrier: bool,
    /// Its driver.
    pub driver: Option<Driver>,
    /// Bytes of the largest packet, without the Ethernet header.
    pub mtu: u32,
    /// Queues that it receives by.
    pub receive_queues: Option<u32>,
    /// Channels that drivers may want to take some of for XDP.
    pub channels: Option<Channels>,
    /// What its driver offers.
    pub xdp: Option<XdpFeatures>,
    /// The features that are on, as `ethtool -k` names them.
    pub features: Option<BTreeSet<String>>,
}

/// A driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Driver {
    /// Its name, or the kind of a virtual interface.
    pub name: String,
    /// Whether it is built outside the kernel's own source.
    pub out_of_tree: bool,
}

/// Channels that transmit: those that receive too, where a driver has them, or those that only do this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Channels {
    /// In use.
    pub count: u32,
    /// Most that there can be.
    pub max: u32,
    /// As `ethtool -L` names them.
    pub kind: &'static str,
}

impl Device {
    /// Asks the kernel for the interface of this index.
    ///
    /// # Errors
    ///
    /// Where it is gone, or netlink refuses.
    pub async fn ask(index: u32) -> Result<Self> {
        let link = tokio::time::timeout(PATIENCE, link(index))
            .await
            .context("netlink does not answer")??;
        let mut device = Self::of_link(&link);
        // What else there is to know is not told by every kernel and driver.
        let _ = tokio::time::timeout(PATIENCE, device.ask_more(index)).await;
        Ok(device)
    }

    fn of_link(link: &LinkMessage) -> Self {
        let flags = link.header.flags;
        let mut device = Self {
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            driver: None,
            mtu: 0,
            receive_queues: None,
            channels: None,
            xdp: None,
            features: None,
        };
        let (mut bus, mut place) = (None, None);
        for attribute in &link.attributes {
            match attribute {
                LinkAttribute::Mtu(bytes) => device.mtu = *bytes,
                LinkAttribute::NumRxQueues(count) => device.receive_queues = Some(*count),
                LinkAttribute::ParentDevBusName(name) => bus = Some(name),
                LinkAttribute::ParentDevName(name) => place = Some(name),
                LinkAttribute::LinkInfo(infos) => {
                    device.driver = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(Driver::new(kind.to_string())),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        if let (Some(bus), Some(place)) = (bus, place) {
            // /sys/bus, unlike /sys/class/net, is the same in all network namespaces.
            let link = format!("/sys/bus/{bus}/devices/{place}/driver");
            let name = fs::read_link(link).ok();
            let name = name.as_ref().and_then(|path| path.file_name());
            device.driver = name
                .map(|name| Driver::new(name.to_string_lossy().into_owned()))
                .or(device.driver);
        }
        if flags.contains(LinkFlags::Loopback) {
            device.driver = Some(Driver::new("loopback".to_owned()));
        }
        device
    }

    async fn ask_more(&mut self, index: u32) -> Result<()> {
        let (connection, mut netlink, _) = ethtool::new_connection()?;
        let connection = tokio::spawn(connection);
        let name = nix::net::if_::if_indextoname(index)?;
        let name = name.to_string_lossy();
        self.xdp = xdp_features(&mut netlink.handle, index).await;
        self.features = features(&mut netlink, &name).await.ok();
        if let Ok((receive_queues, channels)) = channels(&mut netlink, &name).await {
            self.receive_queues = Some(receive_queues);
            self.channels = channels;
        }
        connection.abort();
        Ok(())
    }
}

impl Driver {
    fn new(name: String) -> Self {
        // "O" among the taints: Documentation/admin-guide/tainted-kernels.rst.
        let module = name.replace('-', "_");
        let taint = fs::read_to_string(format!("/sys/module/{module}/taint"));
        let out_of_tree = taint.is_ok_and(|taint| taint.contains('O'));
        Self { name, out_of_tree }
    }
}

async fn link(index: u32) -> Result<LinkMessage> {
    let (connection, netlink, _) = rtnetlink::new_connection().context("cannot open netlink")?;
    let connection = tokio::spawn(connection);
    let link = netlink
        .link()
        .get()
        .match_index(index)
        .execute()
        .try_next()
        .await;
    connection.abort();
    link.context("cannot ask for the interface over netlink")?
        .context("the interface is gone")
}

async fn xdp_features(netlink: &mut GenetlinkHandle, index: u32) -> Option<XdpFeatures> {
    netdev::xdp_features(netlink, index).await.ok()
}

/// The attributes of all answers.
async fn attributes<E: std::error::Error + Send + Sync + 'static>(
    answers: Result<impl Stream<Item = Result<GenlMessage<ethtool::EthtoolMessage>, E>>, E>,
) -> Result<Vec<EthtoolAttr>> {
    let answers: Vec<_> = answers?.try_collect().await?;
    Ok(answers
        .into_iter()
        .flat_map(|answer| answer.payload.nlas)
        .collect())
}

async fn features(netlink: &mut EthtoolHandle, interface: &str) -> Result<BTreeSet<String>> {
    let answers = netlink.feature().get(Some(interface)).execute().await;
    let mut active = BTreeSet::new();
    for attribute in attributes(answers).await? {
        if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(bits)) = attribute {
            active.extend(bits.into_iter().filter(|bit| bit.value).map(|bit| bit.name));
        }
    }
    Ok(active)
}

/// The queues that it receives by, and the channels that it transmits by.
async fn channels(netlink: &mut EthtoolHandle, name: &str) -> Result<(u32, Option<Channels>)> {
    let answers = netlink.channel().get(Some(name)).execute().await;
    let (mut receive, mut combined, mut transmit) = (0, (0, 0), (0, 0));
    for attribute in attributes(answers).await? {
        let EthtoolAttr::Channel(attribute) = attribute else {
            continue;
        };
        match attribute {
            EthtoolChannelAttr::RxCount(count) => receive = count,
            EthtoolChannelAttr::CombinedCount(count) => combined.0 = count,
            EthtoolChannelAttr::CombinedMax(max) => combined.1 = max,
            EthtoolChannelAttr::TxCount(count) => transmit.0 = count,
            EthtoolChannelAttr::TxMax(max) => transmit.1 = max,
            _ => {}
        }
    }
    let of = |(count, max), kind| (max > 0).then_some(Channels { count, max, kind });
    let channels = of(combined, "combined").or(of(transmit, "tx"));
    Ok((receive + combined.0, channels))
}
