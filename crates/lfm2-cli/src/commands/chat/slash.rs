//! Commands that begin with a slash.

use std::path::PathBuf;

use anyhow::Result;
use lfm2::hub::Overwrite;

use crate::exit::invalid;

pub(super) const HELP: &str = "\
/help            list the commands
/clear           forget the conversation, but not the instructions
/undo            take back the last question and its answer
/system TEXT     set the instructions; without TEXT, drop them
/save FILE       write the conversation as JSON; /save! replaces the file
/load FILE       go on from such a file
/image PATH      show a picture, an animation or a folder with the next question
/stats           tokens and speed
/exit            end, as Ctrl-D
A question that begins with a slash is written with two.
";

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slash {
    Help,
    Clear,
    Undo,
    System(String),
    Save { path: PathBuf, overwrite: Overwrite },
    Load(PathBuf),
    Image(PathBuf),
    Stats,
    Exit,
}

impl Slash {
    /// The command in a line; `None` when the line is a question.
    pub(super) fn parse(line: &str) -> Result<Option<Self>> {
        let Some(command) = line.strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
            return Ok(None);
        };
        let (name, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));
        let rest = rest.trim();
        let path = || match rest {
            "" => Err(invalid(format!("/{name} needs a file"))),
            path => Ok(PathBuf::from(path)),
        };
        let command = match name {
            "system" => Self::System(rest.to_owned()),
            "save" => Self::Save {
                path: path()?,
                overwrite: Overwrite::Refuse,
            },
            "save!" => Self::Save {
                path: path()?,
                overwrite: Overwrite::Replace,
            },
            "load" => Self::Load(path()?),
            "image" => Self::Image(path()?),
            _ if !rest.is_empty() => return Err(unknown(name)),
            "help" => Self::Help,
            "clear" => Self::Clear,
            "undo" => Self::Undo,
            "stats" => Self::Stats,
            "exit" | "quit" => Self::Exit,
            _ => return Err(unknown(name)),
        };
        Ok(Some(command))
    }
}

/// A question as it is meant: the second slash of two goes.
pub(super) fn unescape(line: &str) -> &str {
    line.strip_prefix('/').unwrap_or(line)
}

fn unknown(name: &str) -> anyhow::Error {
    invalid(format!(
        "no command /{name} of that form; /help lists them, // begins a question with a slash"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Slash> {
        Slash::parse(line).unwrap()
    }

    #[test]
    fn lines_without_a_slash_and_with_two_are_questions() {
        assert_eq!(parse("Who helped Sam?"), None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("//etc"), None);
        assert_eq!(unescape("//etc"), "/etc");
        assert_eq!(unescape("a / b"), "a / b");
    }

    #[test]
    fn commands_take_their_argument_whole() {
        assert_eq!(
            parse("/system  Be  brief. "),
            Some(Slash::System("Be  brief.".into()))
        );
        assert_eq!(parse("/system"), Some(Slash::System(String::new())));
        assert_eq!(
            parse("/load my chat.json"),
            Some(Slash::Load("my chat.json".into()))
        );
        let path = PathBuf::from("a.json");
        assert_eq!(
            parse("/save a.json"),
            Some(Slash::Save {
                path: path.clone(),
                overwrite: Overwrite::Refuse
            })
        );
        assert_eq!(
            parse("/save! a.json"),
            Some(Slash::Save {
                path,
                overwrite: Overwrite::Replace
            })
        );
        assert_eq!(
            parse("/image my cat.png"),
            Some(Slash::Image("my cat.png".into()))
        );
        assert_eq!(parse("/quit"), Some(Slash::Exit));
    }

    #[test]
    fn mistakes_are_not_sent_to_the_model() {
        for line in [
            "/",
            "/sav x",
            "/save",
            "/image",
            "/clear all",
            "/etc/hosts is a file",
        ] {
            assert!(Slash::parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn help_lists_every_command() {
        for name in [
            "help", "clear", "undo", "system", "save", "load", "image", "stats", "exit",
        ] {
            assert!(HELP.contains(&format!("/{name} ")), "{name}");
        }
    }
}
