//! Turns texts into values; what is wrong is collected, so that one start tells everything.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use config::{Map, Value};

use super::{Config, Secret};

pub(super) struct Reader<'a> {
    config: &'a Config,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub fn new(config: &'a Config) -> Self {
        Self { config, problems: Vec::new() }
    }

    /// Where nothing was refused.
    pub fn finish<T>(self, settings: T) -> anyhow::Result<T> {
        if self.problems.is_empty() {
            return Ok(settings);
        }
        anyhow::bail!("{}", self.problems.join("\n          "))
    }

    /// `what` completes a sentence about the key's value.
    pub fn refuse(&mut self, key: &str, what: impl Display) {
        self.problems.push(match self.config.origin(key) {
            "default" => format!("{key} {what}"),
            origin => format!("{key} (from {origin}) {what}"),
        });
    }

    pub fn is_default(&self, key: &str) -> bool {
        self.config.origin(key) == "default"
    }

    /// None where it is empty.
    pub fn text(&mut self, key: &str) -> Option<String> {
        match self.config.value(key).clone().into_string() {
            Ok(text) => Some(text).filter(|text| !text.is_empty()),
            Err(_) => {
                self.refuse(key, "must be a text");
                None
            }
        }
    }

    /// One of a few names.
    pub fn choice<T: Copy>(&mut self, key: &str, of: &[(&str, T)]) -> T {
        let text = self.text(key).unwrap_or_default();
        match of.iter().find(|(name, _)| *name == text) {
            Some((_, choice)) => *choice,
            None => {
                let names: Vec<_> = of.iter().map(|(name, _)| *name).collect();
                self.refuse(key, format_args!("must be {}, not {text:?}", names.join(" or ")));
                of[0].1
            }
        }
    }

    pub fn number<T: TryFrom<i64> + Default>(&mut self, key: &str, within: RangeInclusive<i64>) -> T {
        let number = self.config.value(key).clone().into_int().ok().filter(|number| within.contains(number));
        match number.and_then(|number| T::try_from(number).ok()) {
            Some(number) => number,
            None => {
                self.refuse(
                    key,
                    format_args!("must be a number from {} to {}", within.start(), within.end()),
                );
                T::default()
            }
        }
    }

    pub fn seconds(&mut self, key: &str, within: RangeInclusive<i64>) -> Duration {
        Duration::from_secs(self.number(key, within))
    }

    pub fn share(&mut self, key: &str) -> f64 {
        match self.config.value(key).clone().into_float() {
            Ok(share) if (0.0..=1.0).contains(&share) => share,
            _ => {
                self.refuse(key, "must be a number from 0 to 1");
                0.0
            }
        }
    }

    /// A URL with a password in it, from the key itself or from the file that its sister `…_file` names.
    pub fn secret(&mut self, key: &str) -> Option<Secret> {
        let file_key = format!("{key}_file");
        let (direct, file) = (self.text(key), self.text(&file_key));
        match (direct, file) {
            (Some(url), None) => Some(Secret(url)),
            (None, None) => None,
            (None, Some(path)) => match std::fs::read_to_string(&path) {
                Ok(text) => Some(Secret(text.trim().to_owned())),
                Err(error) => {
                    self.refuse(&file_key, format_args!("names {path}, which cannot be read: {error}"));
                    None
                }
            },
            (Some(_), Some(_)) => {
                self.refuse(&file_key, format_args!("must not be set beside {key}"));
                None
            }
        }
    }

    /// The tables of a list, each read by `read`, which may take the members it knows and refuses by sentence.
    pub fn tables<T>(&mut self, key: &str, read: impl Fn(&mut Members) -> Result<T, String>) -> Vec<T> {
        let Ok(tables) = self.config.value(key).clone().into_array() else {
            self.refuse(key, "must be a list of tables");
            return Vec::new();
        };
        let mut list = Vec::with_capacity(tables.len());
        for (index, value) in tables.into_iter().enumerate() {
            let read = value.into_table().map_err(|_| "must be a table".to_owned()).and_then(|table| {
                let mut members = Members(table);
                let value = read(&mut members)?;
                members.finish().map(|()| value)
            });
            match read {
                Ok(value) => list.push(value),
                Err(what) => self.refuse(key, format_args!("[{index}]: {what}")),
            }
        }
        list
    }
}

/// The members of a table in a list.
pub(super) struct Members(Map<String, Value>);

impl Members {
    pub fn text(&mut self, name: &str) -> Result<String, String> {
        self.0
            .remove(name)
            .and_then(|value| value.into_string().ok())
            .filter(|text| !text.is_empty())
            .ok_or_else(|| format!("{name} must be a text"))
    }

    pub fn number(&mut self, name: &str, within: RangeInclusive<i64>) -> Result<u32, String> {
        let number = self.0.remove(name).and_then(|value| value.into_int().ok());
        number
            .filter(|number| within.contains(number))
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| format!("{name} must be a number from {} to {}", within.start(), within.end()))
    }

    /// Empty where it is absent.
    pub fn texts(&mut self, name: &str) -> Result<Vec<String>, String> {
        let Some(value) = self.0.remove(name) else { return Ok(Vec::new()) };
        value
            .into_array()
            .and_then(|values| values.into_iter().map(Value::into_string).collect())
            .map_err(|_| format!("{name} must be a list of texts"))
    }

    fn finish(self) -> Result<(), String> {
        match self.0.keys().next() {
            Some(name) => Err(format!("{name} is unknown here")),
            None => Ok(()),
        }
    }
}
