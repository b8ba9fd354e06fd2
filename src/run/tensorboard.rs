//! TensorBoard event files, which hold what `metrics.jsonl` holds.
//!
//! A file is a series of records: length (u64, little endian), masked CRC-32C of its eight bytes, an `Event` in protocol
//! buffer encoding, masked CRC-32C of that (TensorFlow's `record_writer`). The messages, from `event.proto` and
//! `summary.proto`: `Event { 1: wall_time, 2: step, 3: file_version | 5: Summary }`, `Summary { 1: repeated Value }`,
//! `Value { 1: tag, 2: simple_value }`.
use super::files::unwritten;
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) struct EventFile {
    path: PathBuf,
    file: File,
    /// Unix time at which the run's wall clock stood at 0.
    zero: f64,
}

impl EventFile {
    /// The event file in `dir/tensorboard`, made anew from the lines of `dir/metrics.jsonl`, so that a resumed run has no
    /// point twice. `wall_s` is the run's clock at this moment.
    pub(super) fn open(dir: &Path, wall_s: f64) -> Result<Self> {
        let folder = dir.join("tensorboard");
        fs::create_dir_all(&folder).map_err(|e| unwritten(&folder, e))?;
        for old in fs::read_dir(&folder).map_err(Error::io(&folder))?.flatten() {
            if old.file_name().to_string_lossy().starts_with("events.out.tfevents.") {
                fs::remove_file(old.path()).map_err(Error::io(old.path()))?;
            }
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let path = folder.join(format!("events.out.tfevents.{:.0}.thruway", now));
        let file = File::create(&path).map_err(|e| unwritten(&path, e))?;
        let mut events = EventFile { path, file, zero: now - wall_s };
        events.write(&event(events.zero, 0, 3, b"brain.Event:2"))?;
        let metrics = dir.join("metrics.jsonl");
        for line in fs::read_to_string(&metrics).map_err(Error::io(&metrics))?.lines() {
            events.add(&serde_json::from_str(line)?)?;
        }
        Ok(events)
    }

    /// Adds the numbers of a line of `metrics.jsonl`; `null` is NaN.
    pub(super) fn add(&mut self, line: &Map<String, Value>) -> Result<()> {
        let number = |key: &str| line.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let mut summary = Vec::new();
        for key in line.keys().filter(|k| !["step", "epoch", "wall_s"].contains(&k.as_str())) {
            let mut value = Vec::new();
            bytes_field(&mut value, 1, key.as_bytes());
            value.push(2 << 3 | 5); // 32 bits
            value.extend((number(key) as f32).to_le_bytes());
            bytes_field(&mut summary, 1, &value);
        }
        self.write(&event(self.zero + number("wall_s"), number("step") as i64, 5, &summary))
    }

    fn write(&mut self, event: &[u8]) -> Result<()> {
        let length = (event.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_crc(&length).to_le_bytes());
        record.extend(event);
        record.extend(masked_crc(event).to_le_bytes());
        self.file.write_all(&record).map_err(|e| unwritten(&self.path, e))
    }
}

fn event(wall_time: f64, step: i64, field: u8, content: &[u8]) -> Vec<u8> {
    let mut event = vec![1 << 3 | 1]; // 64 bits
    event.extend(wall_time.to_le_bytes());
    event.push(2 << 3); // a varint
    varint(&mut event, step as u64);
    bytes_field(&mut event, field, content);
    event
}

fn bytes_field(message: &mut Vec<u8>, field: u8, content: &[u8]) {
    message.push(field << 3 | 2);
    varint(message, content.len() as u64);
    message.extend(content);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

/// A CRC stored beside its own data is rotated and shifted, so that a CRC over both is not trivial.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Step, file version, and (tag, value) pairs.
    type Event = (u64, String, Vec<(String, f32)>);

    /// The events of a file, read by the format's rules.
    fn read(path: &Path) -> Vec<Event> {
        let (bytes, mut events) = (fs::read(path).unwrap(), Vec::new());
        let mut rest = &bytes[..];
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            (head, tail.is_empty())
        };
        loop {
            let length = take(8).0;
            let unmask =
                |crc: &[u8]| u32::from_le_bytes(crc.try_into().unwrap()).wrapping_sub(0xa282_ead8).rotate_left(15);
            assert_eq!(unmask(take(4).0), crc32c::crc32c(length));
            let data = take(u64::from_le_bytes(length.try_into().unwrap()) as usize).0;
            let (crc, end) = take(4);
            assert_eq!(unmask(crc), crc32c::crc32c(data));
            let mut found = (0, String::new(), Vec::new());
            for (field, number, content) in fields(data) {
                match field {
                    1 => assert!(f64::from_bits(number) > 1.6e9),
                    2 => found.0 = number,
                    3 => found.1 = String::from_utf8(content).unwrap(),
                    5 => {
                        for (_, _, value) in fields(&content) {
                            let parts = fields(&value);
                            let tag = String::from_utf8(parts[0].2.clone()).unwrap();
                            found.2.push((tag, f32::from_bits(parts[1].1 as u32)));
                        }
                    }
                    _ => panic!("field {field}"),
                }
            }
            events.push(found);
            if end {
                return events;
            }
        }
    }

    /// (field, number, bytes) of a protocol buffer message.
    fn fields(mut m: &[u8]) -> Vec<(u8, u64, Vec<u8>)> {
        let number = |m: &mut &[u8]| {
            let (mut value, mut shift) = (0, 0);
            loop {
                let byte = m[0];
                *m = &m[1..];
                value |= ((byte & 0x7f) as u64) << shift;
                shift += 7;
                if byte < 0x80 {
                    return value;
                }
            }
        };
        let mut out = Vec::new();
        while !m.is_empty() {
            let key = number(&mut m) as u8;
            let size = match key & 7 {
                0 => {
                    out.push((key >> 3, number(&mut m), Vec::new()));
                    continue;
                }
                1 => 8,
                5 => 4,
                _ => number(&mut m) as usize,
            };
            let (content, rest) = m.split_at(size);
            m = rest;
            let mut word = [0; 8];
            let n = size.min(8);
            word[..n].copy_from_slice(&content[..n]);
            out.push((key >> 3, u64::from_le_bytes(word), content.to_vec()));
        }
        out
    }

    #[test]
    fn events_read_back_and_a_reopened_file_has_no_point_twice() {
        // A published check value of CRC-32C.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let dir = tempfile::tempdir().unwrap();
        let metrics = dir.path().join("metrics.jsonl");
        fs::write(&metrics, "").unwrap();
        let line = |text: &str| serde_json::from_str::<Map<String, Value>>(text).unwrap();
        let first = r#"{"step": 300, "epoch": 1, "wall_s": 2.5, "loss": 0.25, "nothing": null}"#;
        let mut events = EventFile::open(dir.path(), 1.0).unwrap();
        events.add(&line(first)).unwrap();
        events.add(&line(r#"{"step": 400, "epoch": 1, "wall_s": 3.0, "loss": 0.125}"#)).unwrap();
        let seen = read(&events.path);
        assert_eq!(seen[0], (0, "brain.Event:2".into(), vec![]));
        assert_eq!((seen[1].0, &seen[1].2[0]), (300, &("loss".to_string(), 0.25)));
        assert!(seen[1].2[1].0 == "nothing" && seen[1].2[1].1.is_nan());
        assert_eq!(seen[2], (400, String::new(), vec![("loss".into(), 0.125)]));
        // Resumed from step 300: the point of step 400 is gone.
        fs::write(&metrics, format!("{first}\n")).unwrap();
        let again = EventFile::open(dir.path(), 2.5).unwrap();
        assert_eq!(read(&again.path).iter().map(|e| e.0).collect::<Vec<_>>(), [0, 300]);
        assert_eq!(fs::read_dir(dir.path().join("tensorboard")).unwrap().count(), 1);
    }
}
