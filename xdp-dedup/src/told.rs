//! What `replay` and `events` tell of a frame: the same in the same words.

use std::{fmt::Display, net::Ipv6Addr};

use serde::{Serialize, Serializer};
use xdp_dedup_common::{
    Reason, Verdict,
    description::Description,
    message::{MessageType, TransactionId},
};

/// What became of a frame, and what it was. The fields' order is that of the JSON.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    verdict: &'static str,
    reason: &'static str,
    message: Option<Text<MessageType>>,
    xid: Option<Text<TransactionId>>,
    peer: Option<Ipv6Addr>,
    relay: Option<Ipv6Addr>,
    layers: Option<u8>,
}

/// Headings of the columns.
pub const HEADINGS: [&str; 6] = ["verdict", "reason", "message", "xid", "peer", "relay"];

impl Told {
    /// Of a frame with this verdict for this reason.
    pub fn new(verdict: Verdict, reason: Reason, description: &Description) -> Self {
        Self {
            verdict: verdict.name(),
            reason: reason.name(),
            message: description.message.map(Text),
            xid: description.transaction_id.map(Text),
            peer: description.peer,
            relay: description.relay,
            layers: description.layers,
        }
    }

    /// For people, in columns.
    pub fn in_columns(&self) -> String {
        in_columns([
            self.verdict,
            self.reason,
            &or_dash(self.message.as_ref().map(|message| &message.0)),
            &or_dash(self.xid.as_ref().map(|xid| &xid.0)),
            &or_dash(self.peer),
            &or_dash(self.relay),
        ])
    }
}

/// Widths hold the longest names and usual addresses; a longer address moves what is behind it.
pub fn in_columns([verdict, reason, message, xid, peer, relay]: [&str; 6]) -> String {
    format!("{verdict:<10}  {reason:<17}  {message:<19}  {xid:<6}  {peer:<25}  {relay}")
}

/// What does not apply is a dash to people.
pub fn or_dash(value: Option<impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A value that JSON has as the string that it displays as.
#[derive(Clone, Debug)]
pub struct Text<T>(pub T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}
