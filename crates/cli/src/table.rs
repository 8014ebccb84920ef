//! Tables and blocks in the layout of the DAOS tools.

/// A table: every column as wide as its widest cell and one space, also the last; a header row,
/// then a row of dashes as long as each title.
pub(crate) fn table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(titles.get(column).map_or(0, |title| title.chars().count()))
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$} "));
        padded.collect::<String>() + "\n"
    };
    let dashes: Vec<String> = titles.iter().map(|title| "-".repeat(title.len())).collect();
    let mut out = line(titles.to_vec());
    out.push_str(&line(dashes.iter().map(String::as_str).collect()));
    for row in rows {
        out.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    out
}

/// A block of `  Key : value` lines, both columns padded, and a blank line.
pub(crate) fn block(rows: &[(&str, String)]) -> String {
    let key_width = rows
        .iter()
        .map(|(key, _)| key.chars().count())
        .max()
        .unwrap_or(0);
    let value_width = rows
        .iter()
        .map(|(_, value)| value.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (key, value) in rows {
        out.push_str(&format!("  {key:<key_width$}: {value:<value_width$}\n"));
    }
    out.push('\n');
    out
}

/// Numbers as ranges: `0-2,5`.
pub(crate) fn ranges(numbers: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*number) => *last = *number,
            _ => runs.push((*number, *number)),
        }
    }
    let text = |(first, last): &(u16, u16)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The reverse of [`ranges`]; `None` if the text is none.
pub(crate) fn numbers(text: &str) -> Option<Vec<u16>> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        found.extend(first..=last);
        if first > last {
            return None;
        }
    }
    Some(found)
}

/// Base64 with padding, as JSON shows attribute values.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = (bits >> (18 - 6 * digit) & 63) as usize;
            let filled = digit <= chunk.len();
            out.push(if filled {
                char::from(DIGITS[index])
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_padded_to_the_last_column() {
        let rows = vec![vec!["tank".to_owned(), "4.3 GB".to_owned()]];
        let text = table(&["Pool", "Size"], &rows);
        assert_eq!(text, "Pool Size   \n---- ----   \ntank 4.3 GB \n");
    }

    #[test]
    fn blocks_pad_keys_and_values() {
        let text = block(&[("Container UUID", "abcdef".into()), ("Type", "x".into())]);
        assert_eq!(
            text,
            "  Container UUID: abcdef\n  Type          : x     \n\n"
        );
    }

    #[test]
    fn ranges_and_base64() {
        assert_eq!(ranges(&[0, 1, 2, 5]), "0-2,5");
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[u16::MAX]), "65535");
        assert_eq!(numbers("0-2,5"), Some(vec![0, 1, 2, 5]));
        for bad in ["", "2-1", "1,", "-1", "65536", "a"] {
            assert_eq!(numbers(bad), None, "{bad}");
        }
        for (bytes, text) in [
            ("v1", "djE="),
            ("5s", "NXM="),
            ("v", "dg=="),
            ("abc", "YWJj"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
