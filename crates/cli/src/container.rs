//! `daos container`: listing, querying, changing and destroying containers.

use crate::attributes;
use crate::container_check::{CheckArgs, check};
use crate::container_create::{CreateArgs, create};
use crate::container_view::ContainerJson;
use crate::names::{ContArgs, PoolArg};
use crate::output::{Failure, Reply, Tool};
use crate::session::{Opened, open_container, open_pool};
use crate::table::table;
use clap::{Args, Subcommand};
use daos_types::{ContainerMeta, Der, PROP_KEYS, PropError, PropRow, split_pairs};
use engine::ContainerInfo;
use serde::Serialize;

/// Commands on containers.
#[derive(Subcommand, Debug)]
pub(crate) enum ContainerCommand {
    /// create a container
    Create(Box<CreateArgs>),
    /// list all containers in pool
    #[command(visible_alias = "ls")]
    List(PoolArg),
    /// query a container
    Query(ContArgs),
    /// destroy a container
    Destroy(DestroyArgs),
    /// check the namespace of a container
    Check(CheckArgs),
    /// get container properties
    #[command(visible_alias = "getprop")]
    GetProp(GetPropArgs),
    /// set container properties
    #[command(visible_alias = "setprop")]
    SetProp(SetPropArgs),
    /// list container user-defined attributes
    #[command(visible_aliases = ["list-attrs", "lsattr"])]
    ListAttr(ListAttrArgs),
    /// get container user-defined attribute
    #[command(visible_alias = "getattr")]
    GetAttr(ContArgs),
    /// set container user-defined attribute
    #[command(visible_alias = "setattr")]
    SetAttr(ContArgs),
    /// delete container user-defined attribute
    #[command(visible_alias = "delattr")]
    DelAttr(ContArgs),
}

/// Arguments of `container destroy`.
#[derive(Args, Debug)]
pub(crate) struct DestroyArgs {
    #[command(flatten)]
    cont: ContArgs,
    /// Destroy also while the container is open
    #[arg(short = 'f', long)]
    force: bool,
}

/// Arguments of `container get-prop`.
#[derive(Args, Debug)]
pub(crate) struct GetPropArgs {
    #[command(flatten)]
    cont: ContArgs,
    /// Keys, comma separated (default: all)
    #[arg(long)]
    properties: Option<String>,
}

/// Arguments of `container set-prop`.
#[derive(Args, Debug)]
pub(crate) struct SetPropArgs {
    #[command(flatten)]
    cont: ContArgs,
    /// key:value pairs, comma separated
    #[arg(long)]
    properties: Option<String>,
}

/// Arguments of `container list-attr`.
#[derive(Args, Debug)]
pub(crate) struct ListAttrArgs {
    #[command(flatten)]
    cont: ContArgs,
    /// Include values
    #[arg(short = 'V', long, alias = "verbose-values")]
    verbose: bool,
}

#[derive(Serialize)]
struct ListedJson {
    uuid: String,
    label: String,
}

/// `container list`, also `pool list-containers`.
pub(crate) fn list(tool: Tool, pool: PoolArg) -> Result<Reply, Failure> {
    let name = pool.name()?;
    let (_, attached) = open_pool(&name, &format!("failed to connect to pool {name}"))?;
    let mut found = attached.containers().map_err(|e| Failure::engine("", &e))?;
    found.sort_by(|a, b| (&a.label, a.uuid).cmp(&(&b.label, b.uuid)));
    let shown = |info: &ContainerInfo| match info.label.as_str() {
        "" => "container_label_not_set".to_owned(),
        label => label.to_owned(),
    };
    let rows: Vec<_> = found
        .iter()
        .map(|info| vec![info.uuid.to_string(), shown(info)])
        .collect();
    let text = if rows.is_empty() {
        "No containers.\n".to_owned()
    } else {
        table(&["UUID", "Label"], &rows)
    };
    let json: Vec<_> = found
        .iter()
        .map(|info| ListedJson {
            uuid: info.uuid.to_string(),
            label: shown(info),
        })
        .collect();
    tool.reply(text, &json)
}

fn query(tool: Tool, cont: ContArgs) -> Result<Reply, Failure> {
    let opened = open_container(cont.split(0, 0)?, "")?;
    let json = ContainerJson::new(&opened.pool.uuid.to_string(), &opened.info, &opened.meta);
    tool.reply(json.long_text(), &json)
}

fn destroy(tool: Tool, args: DestroyArgs) -> Result<Reply, Failure> {
    let names = args.cont.named()?;
    let name = names.cont.clone();
    let outer = format!("failed to destroy container {name}");
    let opened = open_container(names, &outer)?;
    opened
        .destroy(args.force)
        .map_err(|failure| failure.under(&outer))?;
    tool.done(format!("Successfully destroyed container {name}\n"))
}

fn rows_of(meta: &ContainerMeta, keys: Option<&str>) -> Result<Vec<PropRow>, PropError> {
    let row = |key: &str| {
        meta.row(key)
            .ok_or_else(|| PropError::Unknown(key.to_owned()))
    };
    match keys {
        Some(keys) => keys.split(',').map(|key| row(key.trim())).collect(),
        None => PROP_KEYS
            .iter()
            .map(|(key, _)| *key)
            .chain(["acl"])
            .map(row)
            .collect(),
    }
}

fn get_prop(tool: Tool, args: GetPropArgs) -> Result<Reply, Failure> {
    let names = args.cont.split(0, 1)?;
    let name = names.cont.clone();
    let keys = names.text()?.or(args.properties);
    let opened = open_container(names, "")?;
    let rows = rows_of(&opened.meta, keys.as_deref()).map_err(|bad| {
        Failure::plain(format!(
            "failed to fetch properties for container {name}: {bad}"
        ))
    })?;
    let cells: Vec<_> = rows
        .iter()
        .map(|row| vec![row.title(), row.value.to_string()])
        .collect();
    let text = format!(
        "Properties for container {name}\n{}",
        table(&["Name", "Value"], &cells)
    );
    tool.reply(text, &rows)
}

fn set_prop(tool: Tool, args: SetPropArgs) -> Result<Reply, Failure> {
    let names = args.cont.split(0, 1)?;
    let name = names.cont.clone();
    let pairs = names.text()?.or(args.properties);
    let pairs = pairs.ok_or_else(|| Failure::usage("key:value pairs are required"))?;
    let plain = |bad: PropError| Failure::plain(bad.to_string());
    let pairs = split_pairs(&pairs).map_err(plain)?;
    let mut trial = daos_types::ContainerProps::default();
    for (key, value) in &pairs {
        trial.change(key, value).map_err(plain)?;
    }
    let mut opened = open_container(names, "")?;
    let outer = format!("failed to set properties on container {name}");
    let changed = opened.change(|meta| {
        let mut pairs = pairs.iter();
        pairs
            .try_for_each(|(key, value)| meta.props.change(key, value))
            .map_err(plain)
    });
    changed.map_err(|failure| failure.under(&outer))?;
    tool.done("Properties were successfully set\n")
}

/// Opens the container of an attribute command; the attributes stand behind it.
fn attr_target(cont: ContArgs, least: usize) -> Result<(String, Opened, Option<String>), Failure> {
    let names = cont.split(least, 1)?;
    let (name, attrs) = (names.cont.clone(), names.text()?);
    Ok((name, open_container(names, "")?, attrs))
}

fn attributes(tool: Tool, command: ContainerCommand) -> Result<Reply, Failure> {
    match command {
        ContainerCommand::ListAttr(args) => {
            let (name, opened, _) = attr_target(args.cont, 0)?;
            let title = format!("container {name}");
            attributes::list(tool, &title, &opened.meta.attrs, args.verbose)
        }
        ContainerCommand::GetAttr(cont) => {
            let (name, opened, names) = attr_target(cont, 0)?;
            let failing = format!("failed to get attributes from container {name}");
            let title = format!("container {name}");
            attributes::get(tool, &title, &failing, &opened.meta.attrs, names.as_deref())
        }
        ContainerCommand::SetAttr(cont) => {
            let (name, mut opened, pairs) = attr_target(cont, 1)?;
            let pairs = attributes::pairs(pairs)?;
            let changed = opened.change(|meta| {
                for (key, value) in &pairs {
                    meta.set_attr(key, value.as_bytes());
                }
                Ok(())
            });
            let outer = format!("failed to set attributes on container {name}");
            changed.map_err(|failure| failure.under(&outer))?;
            tool.done("")
        }
        ContainerCommand::DelAttr(cont) => {
            let (name, mut opened, names) = attr_target(cont, 1)?;
            let names = attributes::names(names)?;
            let changed = opened.change(|meta| {
                meta.attrs.retain(|(known, _)| !names.contains(known));
                Ok(())
            });
            let outer = format!("failed to delete attributes on container {name}");
            changed.map_err(|failure| failure.under(&outer))?;
            tool.done("")
        }
        _ => Err(Failure::der("", Der::NoSys)),
    }
}

/// Runs a `daos container` command.
pub(crate) fn run(tool: Tool, command: ContainerCommand) -> Result<Reply, Failure> {
    match command {
        ContainerCommand::Create(args) => create(tool, *args),
        ContainerCommand::List(pool) => list(tool, pool),
        ContainerCommand::Query(cont) => query(tool, cont),
        ContainerCommand::Destroy(args) => destroy(tool, args),
        ContainerCommand::Check(args) => check(tool, args),
        ContainerCommand::GetProp(args) => get_prop(tool, args),
        ContainerCommand::SetProp(args) => set_prop(tool, args),
        other => attributes(tool, other),
    }
}
