//! Which bytes an authority may consist of, by RFC 3986, section 3.2 without user information (RFC 9113, 8.3.1).

/// Judges the bytes of one plain value in their order.
#[derive(Debug, Default)]
pub(super) struct Rule {
    seen: usize,
    /// The value begins with `[`: an IPv6 address, in which brackets and colons have their meaning. It is left alone.
    address: bool,
    /// A colon was seen; it stands before the port, and a second one is illegal.
    colon: bool,
}

impl Rule {
    /// Whether the next byte of the value may stay.
    pub(super) fn is_legal(&mut self, byte: u8) -> bool {
        if self.seen == 0 {
            self.address = byte == b'[';
        }
        self.seen = self.seen.saturating_add(1);
        match byte {
            b':' => self.address || !std::mem::replace(&mut self.colon, true),
            // Within brackets a percent sign begins the name of an interface.
            b'[' | b']' | b'%' => self.address,
            b'-' | b'.' | b'_' | b'~' => true,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => true,
            other => other.is_ascii_alphanumeric(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::uri::Authority;
    use proptest::prelude::*;

    use super::*;

    fn repaired(value: &[u8]) -> Vec<u8> {
        let mut rule = Rule::default();
        value.iter().map(|byte| if rule.is_legal(*byte) { *byte } else { b'-' }).collect()
    }

    #[test]
    fn socket_paths_become_legal_and_host_names_stay() {
        assert_eq!(repaired(b"tmp%2Fx.sock"), b"tmp-2Fx.sock");
        assert_eq!(repaired(b"/tmp/a b@c[1].sock"), b"-tmp-a-b-c-1-.sock");
        assert_eq!(repaired(b"/tmp/a:b:c.sock"), b"-tmp-a:b-c.sock");
        for host in ["localhost:50051", "[::1]:50051", "a.example.com", "127.0.0.1:1", "a_b~c!d"] {
            assert_eq!(repaired(host.as_bytes()), host.as_bytes());
        }
    }

    proptest! {
        #[test]
        fn what_is_repaired_is_accepted(value in prop::collection::vec(any::<u8>(), 1..60)) {
            prop_assume!(value[0] != b'[');
            let repaired = repaired(&value);
            prop_assert!(Authority::try_from(repaired.as_slice()).is_ok(), "{:?}", repaired.escape_ascii().to_string());
        }
    }
}
