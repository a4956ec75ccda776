//! Fragments: they pass, and those that hold a UDP header to port 547 pass as such.

use testbed::frame::{
    ExtensionHeader, Frame,
    next_header::{DESTINATION_OPTIONS, FRAGMENT},
    reported_pair,
};
use xdp_dedup_common::Reason;

use crate::{
    case::{Case, FIRST, passes},
    datagrams::never,
};

pub fn cases() -> Vec<Case> {
    let fragment = |offset, more| {
        move |frame: Frame| frame.extension_header(ExtensionHeader::fragment(offset, more))
    };
    let fillers = |count: usize, frame: Frame| {
        (0..count).fold(frame, |frame, _| {
            frame.extension_header(ExtensionHeader::of_units(DESTINATION_OPTIONS, 0))
        })
    };
    vec![
        never(
            "a first fragment passes as such",
            Reason::Fragment,
            fragment(0, true),
        ),
        never(
            "an atomic fragment passes as such",
            Reason::Fragment,
            fragment(0, false),
        ),
        never(
            "a later fragment cannot be told apart",
            Reason::NotDhcp,
            fragment(1, true),
        ),
        never(
            "the last fragment cannot be told apart",
            Reason::NotDhcp,
            fragment(1, false),
        ),
        never(
            "the furthest fragment cannot be told apart",
            Reason::NotDhcp,
            fragment(0x1fff, false),
        ),
        never(
            "a first fragment to another port is not looked at",
            Reason::NotDhcp,
            |frame| Frame {
                destination_port: 546,
                ..fragment(0, true)(frame)
            },
        ),
        never(
            "a first fragment is one also where its lengths are wrong",
            Reason::Fragment,
            |f| Frame {
                udp_length: Some(3000),
                payload_length: Some(0),
                ..fragment(0, true)(f)
            },
        ),
        never(
            "a first fragment is one also where it carries something else",
            Reason::Fragment,
            {
                |frame| Frame {
                    payload: vec![13],
                    ..fragment(0, true)(frame)
                }
            },
        ),
        never(
            "a fragment header is one of eight extension headers",
            Reason::Fragment,
            |frame| fillers(3, fragment(0, true)(fillers(4, frame))),
        ),
        never(
            "behind nine headers a fragment is not looked at",
            Reason::NotDhcp,
            |frame| fillers(4, fragment(0, true)(fillers(4, frame))),
        ),
        never(
            "of two fragment headers a later one decides",
            Reason::NotDhcp,
            |frame| fragment(7, true)(fragment(0, true)(frame)),
        ),
        never(
            "the reserved bits of a fragment header say nothing",
            Reason::Fragment,
            |frame| {
                let header = vec![0, 0xff, 0, 0x06, 0, 0, 0, 1];
                frame.extension_header(ExtensionHeader::raw(FRAGMENT, header))
            },
        ),
        {
            let [a, b] = reported_pair();
            Case::new("a fragment neither is nor makes a copy")
                .at(0, &fragment(0, false)(a.clone()), passes(Reason::Fragment))
                .at(1, &b, FIRST)
                .at(2, &fragment(0, false)(a), passes(Reason::Fragment))
        },
    ]
}
