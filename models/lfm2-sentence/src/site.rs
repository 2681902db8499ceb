//! Where in an encoder vectors are taken, and what they are.

use std::fmt;
use std::str::FromStr;

/// A place in an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Site {
    /// Behind layer `n`, counted from 1; 0 is in front of the first. No final norm is applied.
    Layer(usize),
    /// What the encoder gives: states behind the final norm of a text model, unit vectors of a retrieval
    /// model, the last layer of a BERT.
    Final,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(number) => write!(f, "{number}"),
            Self::Final => f.write_str("final"),
        }
    }
}

impl FromStr for Site {
    type Err = String;

    /// A number, or `final`.
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "final" => Ok(Self::Final),
            number => match number.parse() {
                Ok(number) => Ok(Self::Layer(number)),
                Err(_) => Err(format!(
                    "expected the number of a layer or \"final\", found {text:?}"
                )),
            },
        }
    }
}

/// Whether tokens that a model puts around every text, such as a beginning, take part in means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Frame {
    /// They do, as in the study.
    #[default]
    In,
    /// Only the tokens of the text itself do.
    Out,
}

/// The vectors of some texts at one place.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteVectors {
    /// The place.
    pub site: Site,
    /// Numbers per vector.
    pub dims: usize,
    /// The vectors one after another, `(texts, dims)`.
    pub values: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_they_are_read() {
        for site in [Site::Layer(0), Site::Layer(17), Site::Final] {
            assert_eq!(site.to_string().parse(), Ok(site));
        }
        for text in ["", "-1", "last", "1.5"] {
            assert!(text.parse::<Site>().is_err(), "{text}");
        }
        assert!(Site::Layer(99) < Site::Final);
    }
}
