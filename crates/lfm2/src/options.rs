//! [`OpenOptions`]: how a model is opened.

use crate::text::LoadOptions;
use crate::{DType, Device, hub};

/// How a model is opened: where its files come from, and where it runs.
///
/// ```
/// use lfm2::{DType, OpenOptions, hub};
///
/// let files = hub::OpenOptions::default().network(hub::Network::Offline);
/// let options = OpenOptions::default().with_files(files).with_dtype(DType::F32);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Cache, network, limits.
    pub files: hub::OpenOptions,
    /// Device, number type, strictness.
    pub load: LoadOptions,
}

impl OpenOptions {
    /// Sets how files are found and read.
    pub fn with_files(mut self, files: hub::OpenOptions) -> Self {
        self.files = files;
        self
    }

    /// Runs the model on `device`.
    pub fn with_device(mut self, device: Device) -> Self {
        self.load = self.load.with_device(device);
        self
    }

    /// Computes in `dtype`.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.load = self.load.with_dtype(dtype);
        self
    }
}
