//! The slow way to read a configuration: as a tree, with the JSON pointer of everything that is wrong in it.
//!
//! Three passes. [`tree`] parses the text (line and column of a syntax error, members that stand twice).
//! [`normalize`] rewrites what is legal for the specification, or for Go, but not for `oci-spec`. Then the
//! tree is read into the typed value by [`Typed`], a deserializer that knows where it is: at the first value
//! of a wrong type it stops, the value is noted and replaced, and it reads again, until nothing is wrong.

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;

use oci_spec::runtime::{Capability, Process, Spec};
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Unexpected, Visitor,
};
use serde_json::{Map, Value};

use super::{MAX_DEPTH, is_covered};
use crate::error::Mistake;

/// Which part of a configuration a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Spec,
    Process,
    Resources,
}

/// A value that could be made of a document, and what was found on the way.
pub(super) struct Parsed<T> {
    pub value: T,
    pub mistakes: Vec<Mistake>,
    pub warnings: Vec<Mistake>,
}

/// How often a document is read again for the next mistake.
const MAX_ROUNDS: usize = 200;
/// Bytes that are read again for further mistakes: a large file gets fewer rounds.
const MAX_REREAD_BYTES: usize = 64 << 20;
/// Longest message made of a value in the file.
const MAX_MESSAGE_CHARS: usize = 300;

pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8], kind: Kind) -> Result<Parsed<T>, Vec<Mistake>> {
    let mut warnings = Vec::new();
    let mut mistakes = Vec::new();
    let mut tree = tree(bytes, &mut warnings).map_err(|mistake| vec![mistake])?;
    normalize(&mut tree, kind, &mut mistakes, &mut warnings);
    let rounds = (MAX_REREAD_BYTES / bytes.len().max(1)).clamp(8, MAX_ROUNDS);
    for _ in 0..rounds {
        let wrong = match T::deserialize(Typed(&tree)) {
            Ok(value) => return Ok(Parsed { value, mistakes, warnings }),
            Err(wrong) => wrong,
        };
        let mut path: Vec<Step> = wrong.path.into_iter().rev().collect();
        if let Some(field) = wrong.missing {
            path.push(Step::Member(field.to_owned()));
        }
        let pointer = pointer(&path);
        if !is_covered(&pointer, &mistakes) {
            mistakes.push(Mistake { pointer, message: shorten(wrong.message) });
        }
        let replacement = wrong.instead.map_or(Value::Null, |s| Value::String(s.to_owned()));
        if !replace(&mut tree, &path, replacement) {
            return Err(mistakes);
        }
    }
    mistakes.push(Mistake::new("", "there are more mistakes: they are found when these are gone"));
    Err(mistakes)
}

fn shorten(message: String) -> String {
    match message.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((end, _)) => format!("{}...", &message[..end]),
        None => message,
    }
}

/// One step from a value into one of its parts.
#[derive(Clone, Debug)]
enum Step {
    Member(String),
    Element(usize),
}

fn pointer(path: &[Step]) -> String {
    let mut pointer = String::new();
    for step in path {
        pointer.push('/');
        match step {
            Step::Member(name) => pointer.push_str(&escape(name)),
            Step::Element(index) => pointer.push_str(&index.to_string()),
        }
    }
    pointer
}

/// A member's name as a token of a JSON pointer (RFC 6901, section 3).
pub(super) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Puts `replacement` where `path` leads. Where it stands already, it did not help, and the value around it is
/// given up instead; `false` when there is none left.
fn replace(tree: &mut Value, path: &[Step], replacement: Value) -> bool {
    let Some((last, parents)) = path.split_last() else { return false };
    let mut at = &mut *tree;
    for step in parents {
        at = match (at, step) {
            (Value::Object(map), Step::Member(name)) => match map.get_mut(name) {
                Some(value) => value,
                None => return false,
            },
            (Value::Array(array), Step::Element(index)) => match array.get_mut(*index) {
                Some(value) => value,
                None => return false,
            },
            _ => return false,
        };
    }
    // A null stands for an object without members: what is missing in it has to be put into one.
    if at.is_null() && matches!(last, Step::Member(_)) {
        *at = Value::Object(Map::new());
    }
    let replaced = match (at, last) {
        (Value::Object(map), Step::Member(name)) => {
            map.insert(name.clone(), replacement.clone()).as_ref() != Some(&replacement)
        }
        (Value::Array(array), Step::Element(index)) if *index < array.len() => {
            std::mem::replace(&mut array[*index], replacement.clone()) != replacement
        }
        _ => false,
    };
    replaced || replace(tree, parents, Value::Null)
}

// ---------------------------------------------------------------------------------------------- the tree

/// What the visitor of the tree knows besides the text.
struct Reading<'a> {
    path: RefCell<Vec<Step>>,
    warnings: RefCell<&'a mut Vec<Mistake>>,
}

#[derive(Clone, Copy)]
struct Node<'r, 'a> {
    reading: &'r Reading<'a>,
    depth: usize,
}

fn tree(bytes: &[u8], warnings: &mut Vec<Mistake>) -> Result<Value, Mistake> {
    let reading = Reading { path: RefCell::default(), warnings: RefCell::new(warnings) };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = Node { reading: &reading, depth: 0 }.deserialize(&mut json);
    value.and_then(|value| json.end().map(|()| value)).map_err(|e| Mistake::new("", e.to_string()))
}

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Node<'_, '_> {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(Node { depth: self.depth + 1, ..self })
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut array = Vec::new();
        loop {
            self.reading.path.borrow_mut().push(Step::Element(array.len()));
            let element = seq.next_element_seed(inner)?;
            self.reading.path.borrow_mut().pop();
            match element {
                Some(element) => array.push(element),
                None => return Ok(Value::Array(array)),
            }
        }
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.reading.path.borrow_mut().push(Step::Member(name.clone()));
            let value = members.next_value_seed(inner)?;
            if map.insert(name, value).is_some() {
                let at = pointer(&self.reading.path.borrow());
                let warning = Mistake::new(at, "stands more than once in its object; the last one counts");
                self.reading.warnings.borrow_mut().push(warning);
            }
            self.reading.path.borrow_mut().pop();
        }
        Ok(Value::Object(map))
    }
}

// ------------------------------------------------------------------- what oci-spec would not take as it is

fn normalize(tree: &mut Value, kind: Kind, mistakes: &mut Vec<Mistake>, warnings: &mut Vec<Mistake>) {
    match kind {
        Kind::Spec => {
            if let Some(process @ Value::Object(_)) = tree.get_mut("process") {
                normalize_process(process, "/process", mistakes, warnings);
            }
            if let Some(linux @ Value::Object(_)) = tree.get_mut("linux") {
                normalize_linux(linux, warnings);
            }
        }
        Kind::Process => normalize_process(tree, "", mistakes, warnings),
        Kind::Resources => normalize_resources(tree),
    }
}

fn normalize_process(
    process: &mut Value,
    at: &str,
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<Mistake>,
) {
    let Value::Object(members) = process else { return };
    // Go leaves the zero value, which is root.
    members.entry("user").or_insert_with(|| Value::Object(Map::new()));
    if let Some(Value::Object(sets)) = members.get_mut("capabilities") {
        for (set, names) in sets {
            let at = format!("{at}/capabilities/{}", escape(set));
            normalize_capabilities(names, &at, mistakes, warnings);
        }
    }
    if let Some(Value::Array(flags)) = process.pointer_mut("/scheduler/flags") {
        for flag in flags {
            // Left: the specification's name. Right: what oci-spec 0.10 calls it.
            let renamed = match flag.as_str() {
                Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
                Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
                _ => continue,
            };
            *flag = Value::String(renamed.to_owned());
        }
    }
    if let Some(Value::Object(affinity)) = process.pointer_mut("/execCPUAffinity") {
        affinity.retain(|_, list| list.as_str() != Some(""));
    }
}

/// Names that are no capability are ignored with a warning, as the specification demands (config.md,
/// `capabilities`): a newer caller may know more of them than this runtime.
fn normalize_capabilities(
    names: &mut Value,
    at: &str,
    mistakes: &mut Vec<Mistake>,
    warnings: &mut Vec<Mistake>,
) {
    let Value::Array(array) = names else { return };
    let mut index = 0;
    array.retain(|name| {
        let at = format!("{at}/{index}");
        index += 1;
        match name {
            Value::String(name) => {
                let known = Capability::deserialize(StrDeserializer::<de::value::Error>::new(name)).is_ok();
                if !known {
                    warnings
                        .push(Mistake::new(at, shorten(format!("unknown capability {name:?} is ignored"))));
                }
                known
            }
            other => {
                let message = format!("expected a capability's name, found {}", describe(other));
                mistakes.push(Mistake::new(at, message));
                false
            }
        }
    });
}

fn normalize_linux(linux: &mut Value, warnings: &mut Vec<Mistake>) {
    if let Some(resources) = linux.get_mut("resources") {
        normalize_resources(resources);
    }
    if let Some(rdt) = linux.get("intelRdt") {
        for name in ["enableCMT", "enableMBM"] {
            if rdt.get(name).is_some_and(|v| v.as_bool() != Some(false)) {
                let message =
                    "is gone since version 1.3.0 of the specification and is ignored: use enableMonitoring";
                warnings.push(Mistake::new(format!("/linux/intelRdt/{name}"), message));
            }
        }
    }
    if let Some(seccomp) = linux.get("seccomp") {
        let blank = |v: Option<&Value>| v.is_none_or(|v| v.is_null() || v.as_str() == Some(""));
        let empty =
            |v: Option<&Value>| v.is_none_or(|v| v.is_null() || v.as_array().is_some_and(Vec::is_empty));
        // No default action and no rules mean no filter, as callers of runc rely on.
        if seccomp.is_object() && blank(seccomp.get("defaultAction")) && empty(seccomp.get("syscalls")) {
            linux["seccomp"] = Value::Null;
        }
    }
}

fn normalize_resources(resources: &mut Value) {
    let Value::Object(members) = resources else { return };
    if members.get("pids").is_some_and(|p| p.is_object() && p.get("limit").is_none_or(Value::is_null)) {
        members.remove("pids");
    }
    if let Some(Value::Array(limits)) = members.get_mut("hugepageLimits") {
        for limit in limits.iter_mut().filter_map(|l| l.get_mut("limit")) {
            // uint64 in the specification, i64 in oci-spec. Above i64::MAX the kernel knows no limit either.
            if limit.as_u64().is_some_and(|bytes| bytes > i64::MAX as u64) {
                *limit = i64::MAX.into();
            }
        }
    }
    if let Some(Value::Array(rules)) = members.get_mut("devices") {
        for rule in rules.iter_mut().filter_map(Value::as_object_mut) {
            if rule.get("type").is_some_and(|t| t.as_str() == Some("")) {
                rule.remove("type");
            }
        }
    }
}

/// Sets optional strings that are empty to `None`: in Go, and so for every caller, there is no difference.
pub(super) fn drop_empty_strings(spec: &mut Spec) {
    fn path_of(path: &Option<PathBuf>) -> bool {
        path.as_ref().is_some_and(|p| p.as_os_str().is_empty())
    }
    fn text_of(text: &Option<String>) -> bool {
        text.as_deref() == Some("")
    }
    if text_of(spec.hostname()) {
        spec.set_hostname(None);
    }
    if text_of(spec.domainname()) {
        spec.set_domainname(None);
    }
    if let Some(process) = spec.process_mut() {
        drop_empty_process_strings(process);
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if path_of(mount.source()) {
            mount.set_source(None);
        }
        if text_of(mount.typ()) {
            mount.set_typ(None);
        }
    }
    let Some(linux) = spec.linux_mut() else { return };
    if path_of(linux.cgroups_path()) {
        linux.set_cgroups_path(None);
    }
    if text_of(linux.rootfs_propagation()) {
        linux.set_rootfs_propagation(None);
    }
    if text_of(linux.mount_label()) {
        linux.set_mount_label(None);
    }
    for namespace in linux.namespaces_mut().iter_mut().flatten() {
        if path_of(namespace.path()) {
            namespace.set_path(None);
        }
    }
    for device in linux.net_devices_mut().iter_mut().flat_map(|devices| devices.values_mut()) {
        if text_of(device.name()) {
            device.set_name(None);
        }
    }
    if let Some(seccomp) = linux.seccomp_mut() {
        if path_of(seccomp.listener_path()) {
            seccomp.set_listener_path(None);
        }
        if text_of(seccomp.listener_metadata()) {
            seccomp.set_listener_metadata(None);
        }
    }
    if let Some(rdt) = linux.intel_rdt_mut() {
        if text_of(rdt.clos_id()) {
            rdt.set_clos_id(None);
        }
        if text_of(rdt.l3_cache_schema()) {
            rdt.set_l3_cache_schema(None);
        }
        if text_of(rdt.mem_bw_schema()) {
            rdt.set_mem_bw_schema(None);
        }
    }
    if let Some(policy) = linux.memory_policy_mut().as_mut().filter(|policy| text_of(policy.nodes())) {
        policy.set_nodes(None);
    }
}

/// As [`drop_empty_strings`], for a process alone.
pub(super) fn drop_empty_process_strings(process: &mut Process) {
    if process.apparmor_profile().as_deref() == Some("") {
        process.set_apparmor_profile(None);
    }
    if process.selinux_label().as_deref() == Some("") {
        process.set_selinux_label(None);
    }
}

// --------------------------------------------------------------------------------- the typed deserializer

/// A value of a wrong type, and where it is.
#[derive(Debug)]
struct Wrong {
    message: String,
    /// The way to the value, innermost step first.
    path: Vec<Step>,
    /// The member that is missing in the value at `path`.
    missing: Option<&'static str>,
    /// A string that would be right at `path`.
    instead: Option<&'static str>,
}

impl Wrong {
    fn at(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Wrong { message: message.to_string(), path: Vec::new(), missing: None, instead: None }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::custom(format_args!("expected {}, found {}", wanted(expected), described(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(found: &str, variants: &'static [&'static str]) -> Self {
        let list = variants.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(", ");
        let mut wrong = Self::custom(format_args!("{found:?} is not one of {list}"));
        wrong.instead = variants.first().copied();
        wrong
    }

    fn missing_field(field: &'static str) -> Self {
        let mut wrong = Self::custom("is required and missing");
        wrong.missing = Some(field);
        wrong
    }
}

/// What serde calls a type, in the words of someone who writes JSON.
fn wanted(expected: &dyn de::Expected) -> String {
    match expected.to_string().as_str() {
        "u16" => format!("an integer from 0 to {}", u16::MAX),
        "u32" => format!("an integer from 0 to {}", u32::MAX),
        "u64" | "usize" => format!("an integer from 0 to {}", u64::MAX),
        "i32" => format!("an integer from {} to {}", i32::MIN, i32::MAX),
        "i64" => format!("an integer from {} to {}", i64::MIN, i64::MAX),
        "path string" => "a path".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "an object".to_owned(),
        other if other.starts_with("struct ") => "an object".to_owned(),
        other => other.to_owned(),
    }
}

fn described(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Unit => "null".to_owned(),
        Unexpected::Bool(b) => b.to_string(),
        Unexpected::Unsigned(n) => n.to_string(),
        Unexpected::Signed(n) => n.to_string(),
        Unexpected::Float(n) => n.to_string(),
        Unexpected::Str(s) => format!("{s:?}"),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "an object".to_owned(),
        other => other.to_string(),
    }
}

fn describe(value: &Value) -> String {
    described(match value {
        Value::Null => Unexpected::Unit,
        Value::Bool(b) => Unexpected::Bool(*b),
        Value::Number(n) => match (n.as_u64(), n.as_i64()) {
            (Some(n), _) => Unexpected::Unsigned(n),
            (None, Some(n)) => Unexpected::Signed(n),
            (None, None) => Unexpected::Float(n.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(s) => Unexpected::Str(s),
        Value::Array(_) => Unexpected::Seq,
        Value::Object(_) => Unexpected::Map,
    })
}

/// Reads a tree as Go would: null is the zero value of whatever is expected.
#[derive(Clone, Copy)]
struct Typed<'de>(&'de Value);

static NULL: Value = Value::Null;

/// Methods for types whose zero value is visited instead of null.
macro_rules! or_zero {
    ($($method:ident => $visit:ident($zero:expr);)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.0 {
                Value::Null => visitor.$visit($zero),
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Typed<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Number(n) => match (n.as_u64(), n.as_i64()) {
                (Some(n), _) => visitor.visit_u64(n),
                (None, Some(n)) => visitor.visit_i64(n),
                (None, None) => visitor.visit_f64(n.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(s) => visitor.visit_borrowed_str(s),
            Value::Array(array) => visitor.visit_seq(Elements { array, next: 0 }),
            Value::Object(map) => visitor.visit_map(Members { iter: Some(map.iter()), value: None }),
        }
    }

    or_zero! {
        deserialize_bool => visit_bool(false);
        deserialize_i8 => visit_u64(0);
        deserialize_i16 => visit_u64(0);
        deserialize_i32 => visit_u64(0);
        deserialize_i64 => visit_u64(0);
        deserialize_u8 => visit_u64(0);
        deserialize_u16 => visit_u64(0);
        deserialize_u32 => visit_u64(0);
        deserialize_u64 => visit_u64(0);
        deserialize_f32 => visit_u64(0);
        deserialize_f64 => visit_u64(0);
        deserialize_str => visit_borrowed_str("");
        deserialize_string => visit_borrowed_str("");
        deserialize_seq => visit_seq(Elements { array: &[], next: 0 });
        deserialize_map => visit_map(Members { iter: None, value: None });
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.0 {
            // The visitors of structures take arrays as well, which no configuration means.
            Value::Array(_) => Err(de::Error::invalid_type(Unexpected::Seq, &"an object")),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        if let Value::String(name) = self.0 {
            return visitor.visit_enum(name.as_str().into_deserializer());
        }
        let list = variants.iter().map(|v| format!("{v:?}")).collect::<Vec<_>>().join(", ");
        let mut wrong: Wrong =
            de::Error::custom(format_args!("expected one of {list}, found {}", describe(self.0)));
        wrong.instead = variants.first().copied();
        Err(wrong)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

struct Elements<'de> {
    array: &'de [Value],
    next: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = Wrong;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        let index = self.next;
        let Some(element) = self.array.get(index) else { return Ok(None) };
        self.next += 1;
        seed.deserialize(Typed(element)).map(Some).map_err(|wrong| wrong.at(Step::Element(index)))
    }
}

struct Members<'de> {
    iter: Option<serde_json::map::Iter<'de>>,
    value: Option<(&'de String, &'de Value)>,
}

impl<'de> de::MapAccess<'de> for Members<'de> {
    type Error = Wrong;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Wrong> {
        self.value = self.iter.as_mut().and_then(Iterator::next);
        let Some((name, _)) = self.value else { return Ok(None) };
        seed.deserialize(IntoDeserializer::<Wrong>::into_deserializer(name.as_str())).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Wrong> {
        let (name, value) = self.value.take().map_or((None, &NULL), |(name, value)| (Some(name), value));
        seed.deserialize(Typed(value)).map_err(|wrong| match name {
            Some(name) => wrong.at(Step::Member(name.clone())),
            None => wrong,
        })
    }
}
