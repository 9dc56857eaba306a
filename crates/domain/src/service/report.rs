//! What the devices of all users say at one place of one type, counted.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::Reader;
use crate::pointer::{any_element, member};
use crate::{
    Content, DeviceEntry, DeviceId, DevicePlace, EventType, Pointer, StoreError, UserId, limit,
};

/// How many devices have which value at one place of their entries of one type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Devices that have an entry of the type.
    pub devices: u64,
    /// Values with the number of devices that have them; the most frequent first, then by text.
    ///
    /// A value is JSON text as `serde_json` writes it: without white space, the members of objects in
    /// the order of their names, the last of duplicates alone. Two that come to the same text are
    /// one value. So 1 and 1.0 are two, as 10.0 and 1e1 are not. Text that `serde_json` cannot read,
    /// such as a number beyond its range, stays as it was sent. At most
    /// [`limit::TALLY_VALUES_MAX`], those that were met first.
    pub values: Vec<(String, u64)>,
    /// Devices with another value: beyond the number of values, or larger than
    /// [`limit::TALLY_VALUE_BYTES_MAX`].
    pub others: u64,
    /// Devices whose entry has nothing at the place.
    pub absent: u64,
}

/// A device that lacks a value, see [`Reader::lacking`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LackingDevice {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The device's name for people.
    pub display_name: Option<String>,
}

impl LackingDevice {
    fn new(found: DeviceEntry) -> Self {
        let DevicePlace { user, device } = found.place();
        let display_name = found.display_name;
        Self {
            user,
            device,
            display_name,
        }
    }

    /// Returns the device, which is where the next page begins.
    #[must_use]
    pub fn place(&self) -> DevicePlace {
        DevicePlace {
            user: self.user.clone(),
            device: self.device.clone(),
        }
    }
}

impl Reader {
    /// Counts what all devices say at one place of their entries of one type.
    ///
    /// Reads page by page, so it is no snapshot: a device that changes meanwhile is counted with
    /// what it said before or after.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn tally(
        &self,
        event_type: &EventType,
        pointer: &Pointer,
    ) -> Result<Tally, StoreError> {
        self.tally_telling(event_type, pointer, |_| {}).await
    }

    /// Does as [`Reader::tally`], and tells meanwhile how many devices were counted so far.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn tally_telling(
        &self,
        event_type: &EventType,
        pointer: &Pointer,
        tell: impl Fn(u64) + Send,
    ) -> Result<Tally, StoreError> {
        let at_once = self.0.limits().device_entries_at_once();
        let mut count = Count::default();
        let mut after = None;
        loop {
            let page = self.device_entries(event_type, after, at_once).await?;
            let Some(last) = page.last() else {
                return Ok(count.tally());
            };
            after = Some(last.place());
            for content in page.iter().filter_map(|found| found.entry.content.as_ref()) {
                count.add(pointer.find(content));
            }
            tell(count.devices);
        }
    }

    /// Returns up to `limit` devices behind `after` that have the type, but not `value` at the place.
    ///
    /// A device has it where what stands there equals `value` as in a [`Tally`], is an array with such
    /// an element, or an object with a member of that name: "which devices do not support room
    /// version 12". In the order of [`Reader::device_entries`]; fewer than `limit` are the last.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn lacking(
        &self,
        event_type: &EventType,
        pointer: &Pointer,
        value: &Value,
        mut after: Option<DevicePlace>,
        limit: usize,
    ) -> Result<Vec<LackingDevice>, StoreError> {
        let wanted = Wanted::new(value);
        let mut lacking = Vec::new();
        let at_once_max = self.0.limits().device_entries_at_once();
        let mut at_once = limit.min(at_once_max);
        while lacking.len() < limit {
            let page = self.device_entries(event_type, after, at_once).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.place());
            let lacks = |found: &DeviceEntry| {
                let content = found.entry.content.as_ref();
                !content.is_some_and(|content| wanted.is_in(pointer, content))
            };
            // Without the contents: nobody asked for them.
            lacking.extend(page.into_iter().filter(lacks).map(LackingDevice::new));
            // Most devices have it, or the first page would do.
            at_once = at_once_max;
        }
        lacking.truncate(limit);
        Ok(lacking)
    }
}

#[derive(Default)]
struct Count {
    devices: u64,
    values: HashMap<String, u64>,
    others: u64,
    absent: u64,
}

impl Count {
    fn add(&mut self, value: Option<&str>) {
        self.devices += 1;
        let Some(value) = value else {
            self.absent += 1;
            return;
        };
        if value.len() > limit::TALLY_VALUE_BYTES_MAX {
            self.others += 1;
            return;
        }
        let value = normal(value);
        if let Some(count) = self.values.get_mut(&*value) {
            *count += 1;
        } else if self.values.len() < limit::TALLY_VALUES_MAX {
            self.values.insert(value.into_owned(), 1);
        } else {
            self.others += 1;
        }
    }

    fn tally(self) -> Tally {
        let mut values: Vec<(String, u64)> = self.values.into_iter().collect();
        values.sort_by(|(text, count), (other, others)| others.cmp(count).then(text.cmp(other)));
        Tally {
            devices: self.devices,
            values,
            others: self.others,
            absent: self.absent,
        }
    }
}

/// Returns the text by which values are compared, see [`Tally::values`].
fn normal(value: &str) -> Cow<'_, str> {
    if is_normal(value) {
        return Cow::Borrowed(value);
    }
    match serde_json::from_str::<Value>(value) {
        Ok(read) => Cow::Owned(read.to_string()),
        Err(_) => Cow::Borrowed(value),
    }
}

/// Tells of the usual values, at once, that they are written as `serde_json` writes them.
fn is_normal(value: &str) -> bool {
    // As many digits fit an integer of 64 bits for sure; `-0` is none.
    const DIGITS_MAX: usize = 18;
    match value.as_bytes() {
        [b'"', text @ .., b'"'] => !text.contains(&b'\\'),
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.len() < DIGITS_MAX && rest.iter().all(u8::is_ascii_digit),
        value => matches!(value, b"true" | b"false" | b"null"),
    }
}

/// The value that devices have or lack.
struct Wanted<'a> {
    text: String,
    /// As the name of a member.
    name: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn new(value: &'a Value) -> Self {
        Self {
            text: value.to_string(),
            name: value.as_str(),
        }
    }

    fn is_in(&self, pointer: &Pointer, content: &Content) -> bool {
        let Some(found) = pointer.find(content) else {
            return false;
        };
        self.equals(found)
            || match (found.as_bytes().first(), self.name) {
                (Some(b'['), _) => any_element(found, |element| self.equals(element)),
                (Some(b'{'), Some(name)) => member(found, name).is_some(),
                _ => false,
            }
    }

    fn equals(&self, text: &str) -> bool {
        normal(text) == self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_one_where_serde_json_writes_them_alike() {
        let rows = [
            (r#""a""#, r#""\u0061""#, true),
            (r#"{"a":1,"b":[2]}"#, r#"{ "b" : [2], "a" : 1 }"#, true),
            (r#"{"a":1}"#, r#"{"a":2,"a":1}"#, true),
            ("10.0", "1e1", true),
            ("1", "1.0", false),
            ("0", "-0", false),
            ("-0", "-0.0", true),
            ("1e999", "1e999", true),
            ("1e999", "1E999", false),
            ("true", "\"true\"", false),
            ("null", "{}", false),
            ("999999999999999999", "9999999999999999999999", false),
        ];
        for (one, other, equal) in rows {
            assert_eq!(normal(one) == normal(other), equal, "{one} {other}");
        }
    }

    #[test]
    fn what_is_called_normal_is_what_serde_json_writes() {
        let rows = [
            r#""""#,
            r#""a b""#,
            "\"é\"",
            "\"a/b\"",
            "\"\u{7f}\"",
            "\"\u{2028}\"",
            "0",
            "7",
            "123456789012345678",
            "true",
            "false",
            "null",
        ];
        for text in rows {
            assert!(is_normal(text), "{text}");
            let read: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read.to_string(), text);
        }
    }

    #[test]
    fn beyond_so_many_values_the_others_are_counted_together() {
        let mut count = Count::default();
        for number in 0..=limit::TALLY_VALUES_MAX {
            count.add(Some(&number.to_string()));
        }
        count.add(Some("7"));
        count.add(None);
        let fits = format!("\"{}\"", "x".repeat(limit::TALLY_VALUE_BYTES_MAX - 1));
        count.add(Some(&fits));
        let tally = count.tally();
        assert_eq!(tally.values.len(), limit::TALLY_VALUES_MAX);
        assert_eq!(tally.values[0], ("7".to_owned(), 2));
        assert_eq!(tally.values[1], ("0".to_owned(), 1));
        assert_eq!((tally.others, tally.absent), (2, 1));
        assert_eq!(tally.devices, limit::TALLY_VALUES_MAX as u64 + 4);
    }

    #[test]
    fn a_value_is_too_large_by_its_bytes_alone() {
        let mut count = Count::default();
        count.add(Some(&format!(
            "\"{}\"",
            "x".repeat(limit::TALLY_VALUE_BYTES_MAX - 2)
        )));
        count.add(Some(&format!(
            "\"{}\"",
            "x".repeat(limit::TALLY_VALUE_BYTES_MAX - 1)
        )));
        let tally = count.tally();
        assert_eq!((tally.values.len(), tally.others), (1, 1));
    }
}
