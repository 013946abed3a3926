//! The PROXY protocol, versions 1 and 2: how a balancer that passes TCP connections on tells whose they are (pure).
//!
//! By <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>; sections below are its own. Strict: what the
//! specification does not provide for is malformed, and nothing of it is taken for a request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// First bytes of version 2 (§2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// First bytes of version 1 (§2.1).
const PREFIX: &[u8] = b"PROXY ";
/// Longest head of version 1, line end included (§2.1).
const V1_MAX: usize = 107;
/// Signature, version and command, family and transport, length (§2.2).
const V2_FIXED: usize = 16;
/// Longest head of version 2: what balancers add to the addresses (TLVs) is skipped, but has to be read.
const V2_MAX: usize = V2_FIXED + 4096;
/// Longest head of all.
pub const HEAD_MAX: usize = V2_MAX;

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The balancer's own (a health check), or it does not know: the peer's address stands.
    Nothing,
    Address(SocketAddr),
    /// A client of a Unix socket, which has no address.
    Unix,
}

/// Why bytes are no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// What the head at the front of `bytes` tells, and its length; `None`: there have to be more bytes. Never asks for more
/// than [`HEAD_MAX`].
pub fn head(bytes: &[u8]) -> Result<Option<(Told, usize)>, Malformed> {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(ours, theirs)| ours == theirs);
    if begins(SIGNATURE) {
        version_2(bytes)
    } else if begins(PREFIX) {
        version_1(bytes)
    } else {
        Err(Malformed("the connection does not begin with a PROXY head"))
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<(Told, usize)>, Malformed> {
    let window = bytes.get(..V1_MAX).unwrap_or(bytes);
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if window.len() < V1_MAX { Ok(None) } else { Err(Malformed("its line is longer than 107 bytes")) };
    };
    let line = window.get(PREFIX.len()..end).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Malformed("its line is not ASCII"))?;
    let told = match line.split_once(' ') {
        Some(("TCP4", rest)) => addresses::<Ipv4Addr>(rest)?,
        Some(("TCP6", rest)) => addresses::<Ipv6Addr>(rest)?,
        // Whatever follows is to be ignored.
        Some(("UNKNOWN", _)) => Told::Nothing,
        None if line == "UNKNOWN" => Told::Nothing,
        _ => return Err(Malformed("its protocol is none of TCP4, TCP6, UNKNOWN")),
    };
    Ok(Some((told, end + 2)))
}

/// Source and destination address, source and destination port, each behind one blank.
fn addresses<A: std::str::FromStr + Into<IpAddr>>(text: &str) -> Result<Told, Malformed> {
    let mut words = text.split(' ');
    let mut address = || words.next().and_then(|word| word.parse::<A>().ok());
    let (Some(source), Some(_)) = (address(), address()) else {
        return Err(Malformed("an address is not one of its protocol"));
    };
    let (Some(port), Some(_)) = (words.next().and_then(port), words.next().and_then(port)) else {
        return Err(Malformed("a port is not a number from 0 to 65535"));
    };
    match words.next() {
        None => Ok(Told::Address(SocketAddr::new(source.into(), port))),
        Some(_) => Err(Malformed("there is something behind the ports")),
    }
}

fn port(digits: &str) -> Option<u16> {
    let is_plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| is_plain)
}

fn version_2(bytes: &[u8]) -> Result<Option<(Told, usize)>, Malformed> {
    let Some([version_command, family, high, low]) = bytes.get(SIGNATURE.len()..V2_FIXED) else { return Ok(None) };
    let length = V2_FIXED + usize::from(u16::from_be_bytes([*high, *low]));
    if length > V2_MAX {
        return Err(Malformed("it is longer than 4112 bytes"));
    }
    let is_local = match version_command {
        0x20 => true,
        0x21 => false,
        command if command >> 4 == 2 => return Err(Malformed("its command is neither LOCAL nor PROXY")),
        _ => return Err(Malformed("its version is not 2")),
    };
    // By the family: how long both addresses are together with their ports (§2.2). With LOCAL it is to be ignored.
    let addresses = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(Malformed("its address family or transport is not one of the specification")),
    };
    if length < V2_FIXED + addresses {
        return Err(Malformed("it is shorter than its addresses"));
    }
    let Some(block) = bytes.get(V2_FIXED..length) else { return Ok(None) };
    let told = match (is_local, family >> 4) {
        (false, 1) => ipv4(block),
        (false, 2) => ipv6(block),
        (false, 3) => Told::Unix,
        _ => Told::Nothing,
    };
    Ok(Some((told, length)))
}

fn ipv4(block: &[u8]) -> Told {
    let source = block.first_chunk::<4>().map(|bytes| Ipv4Addr::from(*bytes));
    at_port(source, block.get(8..))
}

fn ipv6(block: &[u8]) -> Told {
    let source = block.first_chunk::<16>().map(|bytes| Ipv6Addr::from(*bytes));
    at_port(source, block.get(32..))
}

fn at_port(source: Option<impl Into<IpAddr>>, ports: Option<&[u8]>) -> Told {
    match (source, ports.and_then(|ports| ports.first_chunk::<2>())) {
        (Some(source), Some(port)) => Told::Address(SocketAddr::new(source.into(), u16::from_be_bytes(*port))),
        // Its length was looked at before.
        _ => Told::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> Told {
        Told::Address(text.parse().expect(text))
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[command, family], &length, block].concat()
    }

    /// Source, destination, source port, destination port.
    fn v2_block(source: &[u8], port: u16) -> Vec<u8> {
        [source, &vec![9; source.len()], &port.to_be_bytes(), &443_u16.to_be_bytes()].concat()
    }

    #[test]
    fn version_1_heads() {
        let longest = "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
        for (text, told) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", address("192.0.2.1:56324")),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", address("255.255.255.255:65535")),
            ("PROXY TCP6 2001:db8::1 ::1 0 443\r\n", address("[2001:db8::1]:0")),
            (longest, address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
            ("PROXY UNKNOWN\r\n", Told::Nothing),
            ("PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", Told::Nothing),
            ("PROXY UNKNOWN whatever it is\r\n", Told::Nothing),
        ] {
            let bytes = [text.as_bytes(), b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(head(&bytes), Ok(Some((told, text.len()))), "{text}");
        }
    }

    #[test]
    fn malformed_version_1_heads() {
        for (text, why) in [
            ("GET / HTTP/1.1\r\n", "begin with"),
            ("proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "begin with"),
            ("PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n", "begin with"),
            ("PROXY \r\n", "none of TCP4"),
            ("PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "none of TCP4"),
            ("PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n", "none of TCP4"),
            ("PROXY UNKNOWNX\r\n", "none of TCP4"),
            ("PROXY TCP4\r\n", "none of TCP4"),
            ("PROXY TCP4 \r\n", "an address"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2\r\n", "a port"),
            ("PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n", "an address"),
            ("PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n", "an address"),
            ("PROXY TCP4 ::1 ::1 1 2\r\n", "an address"),
            ("PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n", "an address"),
            ("PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "an address"),
            ("PROXY TCP4 example.com 192.0.2.2 1 2\r\n", "an address"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "a port"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "a port"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "a port"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n", "a port"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 -2\r\n", "a port"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n", "behind"),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\nX\r\n", "a port"),
            ("PROXY UNKNOWN \u{e4}\r\n", ""),
        ] {
            match head(text.as_bytes()) {
                Err(malformed) => assert!(malformed.0.contains(why) && !why.is_empty(), "{text}: {malformed}"),
                // What stands behind UNKNOWN is ignored.
                Ok(told) => assert_eq!((told, why), (Some((Told::Nothing, text.len())), "")),
            }
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(V1_MAX));
        assert_eq!(head(endless.as_bytes()), Err(Malformed("its line is longer than 107 bytes")));
    }

    #[test]
    fn version_2_heads() {
        let (four, six) = (v2_block(&[192, 0, 2, 1], 56324), v2_block(&Ipv6Addr::LOCALHOST.octets(), 1));
        let with_tlvs = [&four[..], &[0x01, 0, 2, b'h', b'2'], &[0xee, 0xff, 0xff]].concat();
        for (bytes, told) in [
            (v2(0x21, 0x11, &four), address("192.0.2.1:56324")),
            (v2(0x21, 0x12, &four), address("192.0.2.1:56324")),
            (v2(0x21, 0x11, &with_tlvs), address("192.0.2.1:56324")),
            (v2(0x21, 0x21, &six), address("[::1]:1")),
            (v2(0x21, 0x31, &[b'/'; 216]), Told::Unix),
            (v2(0x21, 0x00, &[]), Told::Nothing),
            (v2(0x21, 0x00, &[7; 40]), Told::Nothing),
            (v2(0x20, 0x00, &[]), Told::Nothing),
            (v2(0x20, 0x11, &four), Told::Nothing),
            (v2(0x20, 0x11, &[]), Told::Nothing),
            (v2(0x20, 0xff, &[]), Told::Nothing),
            (v2(0x21, 0x11, &[&four[..], &[0; 4096 - 12]].concat()), address("192.0.2.1:56324")),
        ] {
            let more = [&bytes[..], b"GET / HTTP/1.1\r\n"].concat();
            assert_eq!(head(&more), Ok(Some((told, bytes.len()))), "{bytes:?}");
        }
    }

    #[test]
    fn malformed_version_2_heads() {
        let four = v2_block(&[192, 0, 2, 1], 56324);
        for (bytes, why) in [
            (v2(0x22, 0x11, &four), "command"),
            (v2(0x2f, 0x11, &four), "command"),
            (v2(0x11, 0x11, &four), "version"),
            (v2(0x31, 0x11, &four), "version"),
            (v2(0x01, 0x11, &four), "version"),
            (v2(0x21, 0x13, &four), "family"),
            (v2(0x21, 0x01, &four), "family"),
            (v2(0x21, 0x41, &four), "family"),
            (v2(0x21, 0x11, &four[1..]), "shorter"),
            (v2(0x21, 0x21, &four), "shorter"),
            (v2(0x21, 0x31, &[0; 215]), "shorter"),
            (v2(0x21, 0x11, &[0; 4097]), "longer"),
            ([b"\r\n\r\n\0\r\nQUIT\r".to_vec(), vec![0; 9]].concat(), "begin with"),
        ] {
            let malformed = head(&bytes).expect_err(why);
            assert!(malformed.0.contains(why), "{malformed} for {bytes:?}");
        }
    }

    /// A good head of any kind.
    fn heads() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<(Ipv4Addr, Ipv4Addr, u16, u16)>()
                .prop_map(|(from, to, port, other)| format!("PROXY TCP4 {from} {to} {port} {other}\r\n").into_bytes()),
            any::<(Ipv6Addr, Ipv6Addr, u16, u16)>()
                .prop_map(|(from, to, port, other)| format!("PROXY TCP6 {from} {to} {port} {other}\r\n").into_bytes()),
            any::<(Ipv4Addr, u16)>().prop_map(|(from, port)| v2(0x21, 0x11, &v2_block(&from.octets(), port))),
            any::<(Ipv6Addr, u16)>().prop_map(|(from, port)| v2(0x21, 0x21, &v2_block(&from.octets(), port))),
        ]
    }

    proptest! {
        /// However it is cut, it is waited for until it is whole, and what follows is not touched.
        #[test]
        fn a_head_is_read_in_any_pieces(bytes in heads(), more in prop::collection::vec(any::<u8>(), 0..40)) {
            for end in 0..bytes.len() {
                prop_assert_eq!(head(&bytes[..end]), Ok(None));
            }
            let whole = head(&bytes).expect("good").expect("whole");
            prop_assert_eq!(whole.1, bytes.len());
            prop_assert_eq!(head(&[&bytes[..], &more].concat()), Ok(Some(whole)));
        }

        /// Whatever comes is judged by the time that as much was read as a head may have, and no byte too many is taken.
        #[test]
        fn anything_else_is_judged_in_time(
            start in prop::sample::select(vec![SIGNATURE, PREFIX, &b"PROXY TCP4 "[..], &b""[..]]),
            rest in prop::collection::vec(any::<u8>(), 0..5000),
        ) {
            let bytes = [start, &rest].concat();
            match head(&bytes) {
                Ok(None) => prop_assert!(bytes.len() < HEAD_MAX),
                Ok(Some((_, length))) => prop_assert!(length <= bytes.len() && length <= HEAD_MAX),
                Err(_) => {}
            }
        }
    }
}
