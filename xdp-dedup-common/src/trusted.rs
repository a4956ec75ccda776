//! Relays that are trusted, by prefixes of their addresses.

use core::net::Ipv6Addr;

use crate::identity::Address;

/// A prefix of IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    length: u32,
    address: Address,
}

impl Prefix {
    /// The first `length` bits of an address, all of it from 128 on; bits behind them are cleared.
    pub fn new(address: Ipv6Addr, length: u8) -> Self {
        let length = u32::from(length).min(Ipv6Addr::BITS);
        Self {
            length,
            address: Ipv6Addr::from_bits(address.to_bits() & mask(length)).into(),
        }
    }

    /// Number of bits that count.
    pub const fn length(&self) -> u32 {
        self.length
    }

    /// The address with the other bits cleared.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// Whether an address begins with it.
    pub fn contains(&self, address: Address) -> bool {
        Ipv6Addr::from(address).to_bits() & mask(self.length)
            == Ipv6Addr::from(self.address).to_bits()
    }
}

/// The first bits of an address.
fn mask(length: u32) -> u128 {
    u128::MAX.checked_shl(Ipv6Addr::BITS - length).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, length: u8) -> Prefix {
        Prefix::new(text.parse().unwrap(), length)
    }

    #[test]
    fn a_prefix_contains_the_addresses_that_begin_with_it() {
        for (address, length, other, contains) in [
            ("2001:db8::1", 128, "2001:db8::1", true),
            ("2001:db8::1", 128, "2001:db8::2", false),
            ("2001:db8::1", 200, "2001:db8::2", false),
            ("2001:db8::1", 127, "2001:db8::", true),
            ("2001:db8::", 32, "2001:db8:ffff::1", true),
            ("2001:db8::", 32, "2001:db9::1", false),
            ("2001:db8::", 29, "2001:dbf::1", true),
            ("2001:db8::", 29, "2001:dc0::", false),
            ("8000::", 1, "ffff::1", true),
            ("8000::", 1, "7fff::1", false),
            ("::", 0, "fe80::1", true),
        ] {
            let other: Ipv6Addr = other.parse().unwrap();
            assert_eq!(
                prefix(address, length).contains(other.into()),
                contains,
                "{address}/{length} and {other}"
            );
        }
    }

    #[test]
    fn bits_behind_a_prefix_are_cleared() {
        assert_eq!(prefix("2001:db8::1", 32), prefix("2001:db8::", 32));
        assert_eq!(
            Ipv6Addr::from(prefix("2001:db8::1", 32).address()),
            "2001:db8::".parse::<Ipv6Addr>().unwrap()
        );
    }
}
