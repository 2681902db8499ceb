//! Looking into a running model.

use candle_core::{Result, Tensor};

use crate::Routing;

/// Sees the inside of a forward pass: hidden states after every layer, choices of every router.
///
/// Every method does nothing unless overridden. An error stops the pass.
pub trait Observer {
    /// The input embeddings, `(tokens, hidden)`.
    ///
    /// # Errors
    /// Whatever the observer cannot do.
    fn embedded(&mut self, _x: &Tensor) -> Result<()> {
        Ok(())
    }

    /// The output of decoder layer `layer`, `(tokens, hidden)`, before any final norm.
    ///
    /// # Errors
    /// Whatever the observer cannot do.
    fn layer(&mut self, _layer: usize, _x: &Tensor) -> Result<()> {
        Ok(())
    }

    /// Which experts the router of layer `layer` chose.
    ///
    /// # Errors
    /// Whatever the observer cannot do.
    fn routed(&mut self, _layer: usize, _routing: &Routing) -> Result<()> {
        Ok(())
    }
}
