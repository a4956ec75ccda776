//! The model's settings as the filter's policy.

use testbed::model::Settings;
use xdp_dedup_common::{
    Policy,
    digest::DigestKey,
    policy::{EscalateEvery, IdentityBy, Messages, Untrusted, Window},
    time::Microseconds,
    trusted::Prefix,
};

pub fn policy(settings: &Settings, key: DigestKey) -> Policy {
    Policy::new(key)
        .with_window(Window::new(Microseconds(settings.window)).unwrap())
        .with_escalate_every(EscalateEvery::new(settings.escalate_every).unwrap())
        .with_identity(if settings.by_transaction_id {
            IdentityBy::TransactionId
        } else {
            IdentityBy::Client
        })
        .with_messages(if settings.all_messages {
            Messages::All
        } else {
            Messages::Relayed
        })
        .with_observe(settings.observe)
        .with_untrusted(
            settings
                .trusted_relay
                .map(|_| match settings.drop_untrusted {
                    true => Untrusted::Drop,
                    false => Untrusted::Pass,
                }),
        )
}

pub fn trusted_relays(settings: &Settings) -> Vec<Prefix> {
    let prefix = |(address, length): ([u8; 16], u8)| Prefix::new(address.into(), length);
    settings.trusted_relay.map(prefix).into_iter().collect()
}
