//! Any bytes as a run of plain characters, the rest as `%XX`.

/// Appends bytes to `out`; those that are not printable ASCII, `%`, and those `special` names are
/// written as `%XX`.
pub fn escape(bytes: &[u8], special: &[u8], out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |value: u8| char::from(HEX[usize::from(value & 15)]);
    for byte in bytes {
        if matches!(byte, b' '..=b'~') && *byte != b'%' && !special.contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.extend(['%', digit(byte >> 4), digit(*byte)]);
        }
    }
}

/// The bytes that [`escape`] wrote; `None` if a `%` is not followed by two digits.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'%' {
            let hex = core::str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            rest = tail.get(2..)?;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let mut text = String::new();
        escape(&all, b" =", &mut text);
        assert!(text.is_ascii() && !text.contains([' ', '=', '\n']));
        assert_eq!(unescape(&text), Some(all));
        let mut plain = String::new();
        escape(b"a b%", b"", &mut plain);
        assert_eq!(plain, "a b%25");
        assert_eq!(unescape("%4"), None);
        assert_eq!(unescape("%zz"), None);
    }
}
