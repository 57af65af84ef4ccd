//! Layers of settings, merged key by key, each key remembering where its value came from.

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;
use toml::{Table, Value};

use crate::board::Board;
use crate::types::Settings;

const DEFAULTS: &str = include_str!("defaults.toml");
const DEFAULTS_ORIGIN: &str = "built-in defaults";
const PROFILE_ORIGIN: &str = "board profile ";
/// How the environment variables of settings begin.
const PREFIX: &str = "MIRROR_";
/// Keys of earlier versions without which nothing is missing.
const RETIRED: [(&str, &str); 1] = [("vision", "flush_denormals")];

/// Why settings cannot be used. A message about a setting names its origin, its key, and the next step; one about a file that cannot be
/// read names the place in it, and one about a board the boards that there are.
#[derive(Debug, Error)]
#[allow(missing_docs)] // the messages say it
pub enum SettingsError {
    #[error("{origin}: not valid TOML: {reason}")]
    Syntax { origin: String, reason: String },
    #[error("{origin}: there is no setting `{key}`{hint}; `mirror config show` lists them all")]
    UnknownKey { origin: String, key: String, hint: String },
    #[error("{origin}: `{key}` must be {wanted}, not {given}")]
    Type { origin: String, key: String, wanted: &'static str, given: String },
    #[error("{origin}: `{key}` = {value} cannot be used: {reason}")]
    Value { origin: String, key: String, value: String, reason: String },
    #[error("there is no board profile `{name}`; choose one of {}", known.join(", "))]
    UnknownBoard { name: String, known: Vec<String> },
}

/// One setting in effect, as people and programs are shown it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its key, such as `camera.width`.
    pub key: String,
    /// Its value as TOML.
    pub value: String,
    /// Where the value came from.
    pub origin: String,
}

/// The merged settings before and after validation.
#[derive(Clone, Debug)]
pub struct Effective {
    /// What the program uses.
    pub settings: Settings,
    table: Table,
    origins: BTreeMap<String, String>,
}

impl Effective {
    /// Every setting, in the order of the keys.
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for_each_leaf(&self.table, "", &mut |key, value| {
            let origin = self.origins.get(key).cloned().unwrap_or_default();
            entries.push(Entry { key: key.to_owned(), value: value.to_string(), origin });
        });
        entries
    }

    /// Why the value of `key` cannot be used, for reasons that only its user knows; the message names where it came from.
    pub fn refuse(&self, key: &str, reason: String) -> SettingsError {
        SettingsError::Value {
            origin: self.origins.get(key).cloned().unwrap_or_default(),
            value: leaf(&self.table, key).map(Value::to_string).unwrap_or_default(),
            key: key.to_owned(),
            reason,
        }
    }

    /// Whether the key has its value from this origin.
    pub fn is_of(&self, key: &str, origin: &str) -> bool {
        self.origins.get(key).is_some_and(|own| own == origin)
    }

    /// Whether anything stronger than the built-in defaults gave the key its value.
    pub fn is_set(&self, key: &str) -> bool {
        self.origins.get(key).is_some_and(|origin| origin != DEFAULTS_ORIGIN)
    }

    /// Whether somebody gave the key its value: neither the built-in defaults nor a board's profile.
    pub fn is_own(&self, key: &str) -> bool {
        let is_own = |origin: &String| !origin.starts_with(PROFILE_ORIGIN);
        self.is_set(key) && self.origins.get(key).is_some_and(is_own)
    }
}

/// Collects layers from weakest to strongest.
#[derive(Clone, Debug)]
pub struct Layers {
    known: Table,
    table: Table,
    origins: BTreeMap<String, String>,
}

impl Layers {
    /// The built-in defaults alone.
    ///
    /// # Errors
    /// Only for a broken `defaults.toml` in the source tree, which a test rules out.
    pub fn defaults() -> Result<Layers, SettingsError> {
        let table = parse(DEFAULTS_ORIGIN, DEFAULTS)?;
        let mut origins = BTreeMap::new();
        for_each_leaf(&table, "", &mut |key, _| {
            origins.insert(key.to_owned(), DEFAULTS_ORIGIN.to_owned());
        });
        Ok(Layers { known: table.clone(), table, origins })
    }

    /// Adds a board profile.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong type in the profile.
    pub fn board(self, board: &Board) -> Result<Layers, SettingsError> {
        self.add_table(&format!("{PROFILE_ORIGIN}{}", board.name), board.settings.clone())
    }

    /// Adds the text of a settings file; `origin` is its path, for messages.
    ///
    /// # Errors
    /// Broken TOML, an unknown key, or a value of the wrong type.
    pub fn file(self, origin: &str, text: &str) -> Result<Layers, SettingsError> {
        let table = parse(origin, text)?;
        self.add_table(origin, table)
    }

    /// Adds settings from environment variables: `camera.width` is `MIRROR_CAMERA_WIDTH`.
    ///
    /// Variables that name no setting are left alone: other programs may own them. [`Layers::misnamed`] tells of them.
    ///
    /// # Errors
    /// A value that is not of the setting's type, or beyond all whole numbers.
    pub fn environment(
        mut self,
        mut variable: impl FnMut(&str) -> Option<String>,
    ) -> Result<Layers, SettingsError> {
        let mut found = Vec::new();
        for_each_leaf(&self.known, "", &mut |key, default| {
            let name = environment_name(key);
            if let Some(text) = variable(&name) {
                found.push((key.to_owned(), name, text, default.clone()));
            }
        });
        for (key, name, text, default) in found {
            let origin = format!("environment variable {name}");
            let Some(value) = parse_scalar(&text, &default) else {
                return Err(no_such_value(origin, key, text, &default));
            };
            set_leaf(&mut self.table, &key, value);
            self.origins.insert(key, origin);
        }
        Ok(self)
    }

    /// Those of the names of environment variables that look like a setting's and are none's, each with the name that was
    /// perhaps meant.
    pub fn misnamed(&self, names: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut known = Table::new();
        for_each_leaf(&self.known, "", &mut |key, value| {
            known.insert(environment_name(key), value.clone());
        });
        let is_none_s = |name: &String| name.starts_with(PREFIX) && !known.contains_key(name);
        let names = names.into_iter().filter(is_none_s);
        names.map(|name| format!("{name}{}", closest(&name, &known))).collect()
    }

    /// Sets one key, as a command-line option does.
    ///
    /// # Errors
    /// An unknown key or a value of the wrong type.
    pub fn set(
        self,
        origin: &str,
        key: &str,
        value: impl Into<Value>,
    ) -> Result<Layers, SettingsError> {
        let mut table = Table::new();
        set_leaf(&mut table, key, value.into());
        self.add_table(origin, table)
    }

    /// Validates the merged values.
    ///
    /// # Errors
    /// The first value out of its range, with its key, its origin and what is allowed.
    pub fn finish(self) -> Result<Effective, SettingsError> {
        let origin_of = |key: &str| self.origins.get(key).cloned().unwrap_or_default();
        let settings = Settings::from_table(&self.table).map_err(|bad| SettingsError::Value {
            origin: origin_of(&bad.key),
            value: leaf(&self.table, &bad.key).map(Value::to_string).unwrap_or_default(),
            key: bad.key,
            reason: bad.reason,
        })?;
        Ok(Effective { settings, table: self.table, origins: self.origins })
    }

    fn add_table(mut self, origin: &str, mut layer: Table) -> Result<Layers, SettingsError> {
        leave_retired(&mut layer);
        check_shape(origin, "", &self.known, &layer)?;
        let mut leaves = Vec::new();
        for_each_leaf(&layer, "", &mut |key, value| leaves.push((key.to_owned(), value.clone())));
        for (key, value) in leaves {
            let value = match (leaf(&self.known, &key), value) {
                (Some(Value::Float(_)), Value::Integer(number)) => Value::Float(number as f64),
                (_, value) => value,
            };
            set_leaf(&mut self.table, &key, value);
            self.origins.insert(key, origin.to_owned());
        }
        Ok(self)
    }
}

/// Takes out what earlier versions had: it decides nothing any more, and an update must not stop a mirror over it.
fn leave_retired(layer: &mut Table) {
    for (table, key) in RETIRED {
        if let Some(Value::Table(table)) = layer.get_mut(table) {
            table.remove(key);
        }
    }
}

/// The environment variable for a key.
fn environment_name(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_uppercase())
}

fn parse(origin: &str, text: &str) -> Result<Table, SettingsError> {
    text.parse().map_err(|error: toml::de::Error| SettingsError::Syntax {
        origin: origin.into(),
        reason: error.to_string().trim_end().into(),
    })
}

/// Every key of `layer` must exist in `known` with the same kind of value.
fn check_shape(
    origin: &str,
    prefix: &str,
    known: &Table,
    layer: &Table,
) -> Result<(), SettingsError> {
    for (name, value) in layer {
        let key = join(prefix, name);
        let Some(expected) = known.get(name) else {
            return Err(SettingsError::UnknownKey {
                origin: origin.into(),
                hint: closest(name, known),
                key,
            });
        };
        match (expected, value) {
            (Value::Table(known), Value::Table(layer)) => check_shape(origin, &key, known, layer)?,
            (Value::Float(_), Value::Integer(_)) => {}
            (Value::Array(known), Value::Array(given)) => check_list(origin, &key, known, given)?,
            (expected, value) => check_kind(origin, key, expected, value)?,
        }
    }
    Ok(())
}

/// Every value of a list must be of the same kind as those of the default.
fn check_list(
    origin: &str,
    key: &str,
    known: &[Value],
    given: &[Value],
) -> Result<(), SettingsError> {
    let Some(expected) = known.first() else { return Ok(()) };
    let mut values = given.iter().enumerate();
    values.try_for_each(|(at, value)| check_kind(origin, format!("{key}[{at}]"), expected, value))
}

fn check_kind(
    origin: &str,
    key: String,
    expected: &Value,
    value: &Value,
) -> Result<(), SettingsError> {
    if expected.same_type(value) {
        return Ok(());
    }
    let (wanted, given) = (kind_of(expected), kind_of(value).to_owned());
    Err(SettingsError::Type { origin: origin.into(), key, wanted, given })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text in quotes",
        Value::Integer(_) => "a whole number",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// The words ` (did you mean ...?)` with the known name that differs least; nothing where none is near.
fn closest(name: &str, known: &Table) -> String {
    let near = known.keys().map(|key| (edit_distance(name, key), key)).min();
    match near {
        Some((distance, key)) if distance <= 1 + name.len() / 4 => {
            format!(" (did you mean `{key}`?)")
        }
        _ => String::new(),
    }
}

/// Levenshtein's distance, one row at a time.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

fn for_each_leaf(table: &Table, prefix: &str, visit: &mut impl FnMut(&str, &Value)) {
    for (name, value) in table {
        let key = join(prefix, name);
        match value {
            Value::Table(inner) => for_each_leaf(inner, &key, visit),
            leaf => visit(&key, leaf),
        }
    }
}

pub(crate) fn leaf<'t>(table: &'t Table, key: &str) -> Option<&'t Value> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = value.as_table()?.get(part)?;
    }
    Some(value)
}

fn set_leaf(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                set_leaf(inner, rest, value);
            }
        }
    }
}

/// Why an environment variable's text is no value for a setting like this one.
fn no_such_value(origin: String, key: String, text: String, like: &Value) -> SettingsError {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    let whole: Result<i64, _> = text.trim().parse();
    let is_beyond = whole.is_err_and(|error| matches!(error.kind(), NegOverflow | PosOverflow));
    if like.is_integer() && is_beyond {
        let reason = "it is beyond every setting's range".to_owned();
        return SettingsError::Value { origin, key, value: text, reason };
    }
    SettingsError::Type { origin, key, wanted: kind_of(like), given: format!("{text:?}") }
}

/// Reads an environment variable's text as the kind of value that the setting has.
fn parse_scalar(text: &str, like: &Value) -> Option<Value> {
    match like {
        Value::String(_) => Some(Value::String(text.to_owned())),
        Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
        Value::Float(_) => text.trim().parse().ok().map(Value::Float),
        Value::Boolean(_) => text.trim().parse().ok().map(Value::Boolean),
        Value::Array(_) => {
            let items = text.split(',').map(|item| Value::String(item.trim().to_owned()));
            Some(Value::Array(items.collect()))
        }
        Value::Datetime(_) | Value::Table(_) => None,
    }
}
