//! What origins are told of clients, and whose word is taken for it (pure).

use std::net::IpAddr;
use std::str::FromStr;

use millpond_shared::http1::Fields;

use super::guarded::FOR;

/// What becomes of the fields by which proxies tell of the client (`X-Forwarded-For` and its like).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// They are forwarded as they came, and none is added.
    Untouched,
    /// They are written anew, but for what a peer in one of these networks says.
    Told { trusted: Vec<Network> },
}

impl Default for Forwarding {
    fn default() -> Forwarding {
        Forwarding::Told { trusted: Vec::new() }
    }
}

/// Who sent a request, as its origin is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Address of the peer; `None`: unknown, or nobody in particular asks.
    pub address: Option<IpAddr>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Whether what it says of others is believed.
    pub trusted: bool,
}

impl Forwarding {
    /// `None`: origins are told nothing.
    pub fn sender(&self, address: Option<IpAddr>, scheme: &'static str) -> Option<Sender> {
        if *self == Forwarding::Untouched {
            return None;
        }
        // On a socket for both families, IPv4 peers have mapped addresses.
        let address = address.map(|address| address.to_canonical());
        Some(Sender { address, scheme, trusted: address.is_some_and(|address| self.trusts(address)) })
    }

    /// Whose request it is, for limits: the peer, or, where that is trusted, the last address in `X-Forwarded-For` that
    /// is not. What stands before that anybody can have written.
    pub fn client(&self, peer: Option<IpAddr>, fields: &Fields) -> Option<IpAddr> {
        let mut client = peer?.to_canonical();
        if !self.trusts(client) {
            return Some(client);
        }
        let lines: Vec<&[u8]> = fields.get_all(FOR).collect();
        let told = lines.iter().rev().flat_map(|line| line.rsplit(|b| *b == b','));
        for address in told.map(|text| std::str::from_utf8(text).ok()?.trim().parse::<IpAddr>().ok()) {
            // Of what is no address nothing more can be told than who wrote it down.
            let Some(address) = address else { break };
            client = address.to_canonical();
            if !self.trusts(client) {
                break;
            }
        }
        Some(client)
    }

    /// Whether the word of a peer is taken about others.
    fn trusts(&self, address: IpAddr) -> bool {
        match self {
            Forwarding::Untouched => false,
            Forwarding::Told { trusted } => trusted.iter().any(|network| network.contains(address)),
        }
    }
}

/// Addresses that share their first bits: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(other)) => same(ours.to_bits().into(), other.to_bits().into(), 32, self.bits),
            (IpAddr::V6(ours), IpAddr::V6(other)) => same(ours.to_bits(), other.to_bits(), 128, self.bits),
            _ => false,
        }
    }

    /// The same network with nothing but zeros behind its first bits.
    fn first(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(32 - self.bits).unwrap_or(0)).into())
            }
            IpAddr::V6(address) => {
                IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(128 - self.bits).unwrap_or(0)).into())
            }
        }
    }
}

/// Whether the first `bits` of two numbers of `width` bits are the same.
fn same(one: u128, other: u128, width: u32, bits: u32) -> bool {
    (one ^ other).checked_shr(width - bits).unwrap_or(0) == 0
}

/// Why a text is no network, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoNetwork {
    pub fix: String,
}

impl FromStr for Network {
    type Err = NoNetwork;

    fn from_str(text: &str) -> Result<Network, NoNetwork> {
        let malformed = || NoNetwork { fix: "write an address or a network, as in \"10.0.0.0/8\"".to_owned() };
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().map_err(|_| malformed())?,
            Some(_) => return Err(malformed()),
        };
        if bits > width {
            return Err(NoNetwork { fix: format!("an address of this kind has {width} bits: write at most /{width}") });
        }
        let network = Network { address, bits };
        if network.first() != address {
            return Err(NoNetwork { fix: format!("write \"{}/{bits}\"", network.first()) });
        }
        Ok(network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_hold_what_shares_their_first_bits() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("::1", "::1", "::2"),
            ("::/0", "::2", "1.2.3.4"),
        ] {
            let parsed: Network = network.parse().expect(network);
            assert!(parsed.contains(inside.parse().expect("an address")), "{network} {inside}");
            assert!(!parsed.contains(outside.parse().expect("an address")), "{network} {outside}");
        }
    }

    #[test]
    fn what_is_no_network_is_told_how_to_write_it() {
        for (text, fix) in [
            ("", "10.0.0.0/8"),
            ("example.com", "10.0.0.0/8"),
            ("10.0.0.0/", "10.0.0.0/8"),
            ("10.0.0.0/+8", "10.0.0.0/8"),
            ("10.0.0.0/33", "at most /32"),
            ("10.1.2.3/8", "\"10.0.0.0/8\""),
            ("10.1.2.3/0", "\"0.0.0.0/0\""),
            ("fd00::1/8", "\"fd00::/8\""),
        ] {
            let told = text.parse::<Network>().expect_err(text).fix;
            assert!(told.contains(fix), "{text}: {told}");
        }
    }

    #[test]
    fn a_mapped_address_is_that_of_its_ipv4_peer() {
        let told = Forwarding::Told { trusted: vec!["10.0.0.0/8".parse().expect("a network")] };
        let sender = told.sender("::ffff:10.1.1.1".parse().ok(), "http").expect("told");
        assert_eq!((sender.trusted, sender.address), (true, "10.1.1.1".parse().ok()));
        assert_eq!(told.sender(None, "http").map(|sender| sender.trusted), Some(false));
        assert_eq!(Forwarding::Untouched.sender("10.1.1.1".parse().ok(), "http"), None);
    }

    #[test]
    fn the_client_is_the_last_who_is_not_trusted() {
        let told = Forwarding::Told { trusted: vec!["10.0.0.0/8".parse().expect("a network")] };
        /// Peer, lines of X-Forwarded-For, client.
        type Case = (&'static str, &'static [&'static str], &'static str);
        let cases: [Case; 11] = [
            ("192.0.2.1", &[], "192.0.2.1"),
            ("192.0.2.1", &["192.0.2.9"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["192.0.2.9"], "192.0.2.9"),
            ("10.0.0.1", &["192.0.2.8, 192.0.2.9"], "192.0.2.9"),
            ("10.0.0.1", &["192.0.2.8", "192.0.2.9"], "192.0.2.9"),
            ("10.0.0.1", &["192.0.2.8 , 10.0.0.7"], "192.0.2.8"),
            ("10.0.0.1", &["10.0.0.8,10.0.0.7"], "10.0.0.8"),
            ("10.0.0.1", &["192.0.2.8, unknown, 10.0.0.7"], "10.0.0.7"),
            ("10.0.0.1", &["192.0.2.8, "], "10.0.0.1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
        ];
        for (peer, lines, client) in cases {
            let fields: Fields = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            assert_eq!(told.client(peer.parse().ok(), &fields), client.parse().ok(), "{peer} {lines:?}");
            let peer: IpAddr = peer.parse().expect("an address");
            assert_eq!(Forwarding::Untouched.client(Some(peer), &fields), Some(peer.to_canonical()));
        }
        assert_eq!(told.client(None, &Fields::default()), None);
    }
}
