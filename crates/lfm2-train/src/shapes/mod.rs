//! Pictures of coloured shapes, and what there is to say about them.
//!
//! A [`Scene`] is a few facts: which shapes, of which colours and sizes, where, on which ground. The same
//! facts are drawn ([`Scene::draw`]) and put into words ([`Scene::ask`]), so that every answer is true.
//! All of it follows from a seed; no file is needed. An [`Examinee`] is asked about pictures that nobody
//! trained on.
//!
//! ```
//! use lfm2_train::Rng;
//! use lfm2_train::shapes::{Scene, SceneOptions, Topic};
//!
//! let mut rng = Rng::new(7);
//! let scene = Scene::random(&SceneOptions::default(), &mut rng);
//! let picture = scene.draw()?;
//! assert_eq!((picture.width(), picture.height()), scene.size());
//! let question = scene.ask(Topic::Count, &mut rng).unwrap();
//! assert!(question.text.starts_with("How many"));
//! # Ok::<(), lfm2_train::Error>(())
//! ```

mod draw;
mod exam;
mod outline;
mod scene;
mod words;

pub use exam::{Exam, ExamAnswer, ExamReport, Examinee, TopicScore};
pub use scene::{Colour, Extent, Kind, Place, Scene, SceneOptions, Shape};
pub use words::{Question, Topic};
