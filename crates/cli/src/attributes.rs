//! Attributes that users give pools and containers: listing, and the arguments that name them.

use crate::output::{Failure, Reply, Tool};
use crate::table::{base64, table};
use daos_types::{Der, split_pairs};
use serde::Serialize;
use std::collections::BTreeMap;

/// Attributes as both pools and containers show them.
pub(crate) fn list(
    tool: Tool,
    title: &str,
    attrs: &[(String, Vec<u8>)],
    values: bool,
) -> Result<Reply, Failure> {
    let sorted: BTreeMap<&str, &[u8]> = attrs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    let mut text = format!("Attributes for {title}:\n");
    if sorted.is_empty() {
        text.push_str("  No attributes found.\n");
    } else if values {
        let row = |(name, value): (&&str, &&[u8])| {
            vec![
                (*name).to_owned(),
                String::from_utf8_lossy(value).into_owned(),
            ]
        };
        text.push_str(&table(
            &["Name", "Value"],
            &sorted.iter().map(row).collect::<Vec<_>>(),
        ));
    } else {
        let rows: Vec<_> = sorted.keys().map(|name| vec![(*name).to_owned()]).collect();
        text.push_str(&table(&["Name"], &rows));
    }
    if values {
        let json: BTreeMap<&str, String> = sorted
            .iter()
            .map(|(name, value)| (*name, base64(value)))
            .collect();
        tool.reply(text, &json)
    } else {
        tool.reply(text, &sorted.keys().collect::<Vec<_>>())
    }
}

#[derive(Serialize)]
struct AttrJson<'a> {
    name: &'a str,
    value: String,
}

/// `get-attr` for pools and containers: all, or those named (comma separated).
pub(crate) fn get(
    tool: Tool,
    title: &str,
    failing: &str,
    attrs: &[(String, Vec<u8>)],
    wanted: Option<&str>,
) -> Result<Reply, Failure> {
    let Some(wanted) = wanted else {
        return list(tool, title, attrs, true);
    };
    let mut chosen = Vec::new();
    for name in wanted.split(',') {
        match attrs.iter().find(|(known, _)| known == name) {
            Some(found) => chosen.push(found.clone()),
            None => {
                let outer = format!("{failing}: failed to get attribute sizes: {name}...");
                return Err(Failure::der(outer, Der::NonExist));
            }
        }
    }
    match chosen.as_slice() {
        [(name, value)] if tool.json => tool.reply(
            String::new(),
            &AttrJson {
                name,
                value: base64(value),
            },
        ),
        _ => list(tool, title, &chosen, true),
    }
}

/// Name-value pairs of `set-attr`.
pub(crate) fn pairs(text: Option<String>) -> Result<Vec<(String, String)>, Failure> {
    let text = text.ok_or_else(|| Failure::usage("attribute name:value pairs are required"))?;
    split_pairs(&text).map_err(|bad| Failure::plain(bad.to_string()))
}

/// Names of `del-attr`.
pub(crate) fn names(text: Option<String>) -> Result<Vec<String>, Failure> {
    let text = text.ok_or_else(|| Failure::usage("attribute names are required"))?;
    Ok(text.split(',').map(str::to_owned).collect())
}
