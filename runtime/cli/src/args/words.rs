//! Words into flags and operands, by the rules of Go's `flag` package and of what runc puts on top of it: one dash is
//! as good as two, a value follows `=` or is the next word, letters are not bundled, flags may stand behind operands,
//! and `--` ends them.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::Error;

/// The words that were not looked at yet.
#[derive(Debug)]
pub(crate) struct Words {
    rest: VecDeque<OsString>,
    /// What followed the `=` of the last flag.
    inline: Option<OsString>,
    flags_ended: bool,
}

/// One of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// A flag's name, without dashes and value.
    Flag(String),
    /// Anything else.
    Operand(OsString),
}

impl Words {
    pub(crate) fn new(words: impl Iterator<Item = OsString>) -> Self {
        Self { rest: words.collect(), inline: None, flags_ended: false }
    }

    /// The next word, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Word>, Error> {
        let Some(word) = self.rest.pop_front() else { return Ok(None) };
        let bytes = word.as_bytes();
        if self.flags_ended || bytes.first() != Some(&b'-') || bytes.len() == 1 {
            return Ok(Some(Word::Operand(word)));
        }
        if bytes == b"--" {
            self.flags_ended = true;
            return self.next();
        }
        let bare = bytes.strip_prefix(b"--").unwrap_or(&bytes[1..]);
        let (name, value) = match bare.iter().position(|byte| *byte == b'=') {
            Some(place) => (&bare[..place], Some(&bare[place + 1..])),
            None => (bare, None),
        };
        self.inline = value.map(|value| OsStr::from_bytes(value).to_owned());
        let name = String::from_utf8(name.to_vec())
            .map_err(|error| Error::not_text(OsString::from_vec(error.into_bytes())))?;
        Ok(Some(Word::Flag(name)))
    }

    /// The next word if it is a flag.
    pub(crate) fn flag_before_operand(&mut self) -> Result<Option<String>, Error> {
        if !self.rest.front().is_some_and(|word| word.as_bytes().starts_with(b"-")) {
            return Ok(None);
        }
        match self.next()? {
            Some(Word::Flag(flag)) => Ok(Some(flag)),
            Some(Word::Operand(word)) => {
                self.rest.push_front(word);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Undoes the taking of a flag without a value.
    pub(crate) fn push_back(&mut self, flag: &str) {
        self.rest.push_front(format!("--{flag}").into());
    }

    /// The next operand as text.
    pub(crate) fn operand(&mut self) -> Result<Option<String>, Error> {
        match self.next()? {
            None => Ok(None),
            Some(Word::Operand(word)) => word.into_string().map(Some).map_err(Error::not_text),
            Some(Word::Flag(flag)) => Err(Error::unknown_flag(&flag)),
        }
    }

    /// The operands of a verb whose flags `take` knows and takes; `None` if help is asked for instead.
    pub(crate) fn operands(
        &mut self,
        mut take: impl FnMut(&str, &mut Self) -> Result<bool, Error>,
    ) -> Result<Option<Vec<String>>, Error> {
        let mut operands = Vec::new();
        while let Some(word) = self.next()? {
            match word {
                Word::Operand(word) => operands.push(word.into_string().map_err(Error::not_text)?),
                Word::Flag(flag) if take(&flag, self)? => {}
                Word::Flag(flag) if is_help(&flag) => return Ok(None),
                Word::Flag(flag) => return Err(Error::unknown_flag(&flag)),
            }
        }
        Ok(Some(operands))
    }

    /// All that is left, whatever it looks like.
    pub(crate) fn rest(&mut self) -> Result<Vec<String>, Error> {
        self.rest.drain(..).map(|word| word.into_string().map_err(Error::not_text)).collect()
    }

    /// The value of the flag that was just taken.
    pub(crate) fn value(&mut self, flag: &str) -> Result<OsString, Error> {
        let value = self.inline.take().or_else(|| self.rest.pop_front());
        value.ok_or_else(|| Error::Usage(format!("flag needs an argument: -{flag}")))
    }

    pub(crate) fn path(&mut self, flag: &str) -> Result<PathBuf, Error> {
        self.value(flag).map(PathBuf::from)
    }

    pub(crate) fn text(&mut self, flag: &str) -> Result<String, Error> {
        self.value(flag)?.into_string().map_err(Error::not_text)
    }

    pub(crate) fn parsed<T: FromStr<Err: std::fmt::Display>>(&mut self, flag: &str) -> Result<T, Error> {
        let text = self.text(flag)?;
        text.parse().map_err(|error| Error::value(flag, &text, &error))
    }

    /// A flag that is either there or not, or has `=true` or `=false`.
    pub(crate) fn switch(&mut self, flag: &str) -> Result<bool, Error> {
        match self.inline.take() {
            None => Ok(true),
            Some(value) => match value.to_str() {
                Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
                Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
                _ => Err(Error::value(flag, &value.to_string_lossy(), &"it is true or false")),
            },
        }
    }
}

/// Whether a flag asks for help.
pub(crate) fn is_help(flag: &str) -> bool {
    matches!(flag, "help" | "h")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Words {
        Words::new(text.split_whitespace().map(OsString::from))
    }

    fn flag(name: &str) -> Option<Word> {
        Some(Word::Flag(name.to_owned()))
    }

    #[test]
    fn one_dash_is_as_good_as_two_and_values_come_either_way() {
        for text in ["--bundle /b id", "-bundle /b id", "--bundle=/b id", "-bundle=/b id"] {
            let mut words = words(text);
            assert_eq!(words.next().unwrap(), flag("bundle"), "{text}");
            assert_eq!(words.path("bundle").unwrap(), PathBuf::from("/b"), "{text}");
            assert_eq!(words.next().unwrap(), Some(Word::Operand("id".into())), "{text}");
            assert_eq!(words.next().unwrap(), None, "{text}");
        }
    }

    #[test]
    fn a_value_may_look_like_a_flag_and_may_be_empty() {
        let mut words = words("--memory -1 --cpus= x");
        assert_eq!(words.next().unwrap(), flag("memory"));
        assert_eq!(words.parsed::<i64>("memory").unwrap(), -1);
        assert_eq!(words.next().unwrap(), flag("cpus"));
        assert_eq!(words.text("cpus").unwrap(), "");
    }

    #[test]
    fn switches_take_no_word() {
        let mut words = words("-d --force=false --tty=maybe id");
        assert_eq!((words.next().unwrap(), words.switch("d").unwrap()), (flag("d"), true));
        assert_eq!((words.next().unwrap(), words.switch("force").unwrap()), (flag("force"), false));
        assert_eq!(words.next().unwrap(), flag("tty"));
        assert!(words.switch("tty").is_err());
    }

    #[test]
    fn two_dashes_end_the_flags_and_one_is_an_operand() {
        let mut words = words("- -- -x --");
        for operand in ["-", "-x", "--"] {
            assert_eq!(words.next().unwrap(), Some(Word::Operand(operand.into())));
        }
    }

    #[test]
    fn a_flag_at_the_end_lacks_its_value() {
        let mut words = words("--pid-file");
        assert_eq!(words.next().unwrap(), flag("pid-file"));
        assert!(words.path("pid-file").is_err());
    }
}
