//! Who counts as one client (pure).

use std::net::IpAddr;

/// One client: an IPv4 address, or the /64 network of an IPv6 address, which is the least that one household is given
/// (RFC 6177 §2). All whose address is not known are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(u128);

/// The bits of an IPv6 address that tell one client from another.
const NETWORK_BITS: u32 = 64;

impl ClientId {
    /// For limits that all share.
    pub const EVERYBODY: ClientId = ClientId(u128::MAX);

    pub fn of(address: Option<IpAddr>) -> ClientId {
        // On a socket for both families, IPv4 peers have mapped addresses.
        match address.map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => ClientId(address.to_ipv6_mapped().to_bits()),
            Some(IpAddr::V6(address)) => ClientId(address.to_bits() & !(u128::MAX >> NETWORK_BITS)),
            None => ClientId::EVERYBODY,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> ClientId {
        ClientId::of(Some(address.parse().expect(address)))
    }

    #[test]
    fn ipv4_by_address_and_ipv6_by_network() {
        assert_eq!(client("10.0.0.1"), client("::ffff:10.0.0.1"));
        assert_ne!(client("10.0.0.1"), client("10.0.0.2"));
        assert_eq!(client("2001:db8:1:2::1"), client("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(client("2001:db8:1:2::1"), client("2001:db8:1:3::1"));
        assert_ne!(client("::1"), client("0.0.0.0"));
        assert_eq!(ClientId::of(None), ClientId::EVERYBODY);
    }
}
