//! The weight file: mapped while a model loads, each tensor checked and widened to f32 as it is taken out.

use std::{
    borrow::Cow,
    fs::File,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::LoadError;

/// A mapped safetensors file.
pub(crate) struct WeightFile {
    path: PathBuf,
    map: Mmap,
}

impl WeightFile {
    pub(crate) fn open(path: &Path) -> Result<Self, LoadError> {
        let io = |source| LoadError::Io { file: path.to_path_buf(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read only while the model loads. Another process that shortened the file in these
        // milliseconds would end this one; model directories are replaced whole, never written in place.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self { path: path.to_path_buf(), map })
    }

    /// The file's bytes, for a fingerprint.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Reads the header.
    pub(crate) fn tensors(&self) -> Result<Tensors<'_>, LoadError> {
        let tensors = SafeTensors::deserialize(&self.map).map_err(|error| LoadError::Malformed {
            file: self.path.clone(),
            expected: "safetensors",
            reason: error.to_string(),
        })?;
        // Checkpoints saved with a task's head keep the encoder under its own name.
        let prefix = if tensors.tensor("embeddings.word_embeddings.weight").is_err() { "bert." } else { "" };
        Ok(Tensors { path: &self.path, tensors, prefix })
    }
}

/// The tensors of a weight file, by the encoder's own names.
pub(crate) struct Tensors<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    prefix: &'static str,
}

impl<'a> Tensors<'a> {
    /// A tensor of this shape as f32: proven to be there, of the shape, and finite. Borrowed from the map
    /// where it lies there as aligned f32.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>, LoadError> {
        let tensor = format!("{}{name}", self.prefix);
        let view = self.tensors.tensor(&tensor).map_err(|_| LoadError::MissingTensor {
            file: self.path.to_path_buf(),
            tensor: tensor.clone(),
        })?;
        if view.shape() != shape {
            return Err(LoadError::WrongShape {
                file: self.path.to_path_buf(),
                tensor,
                expected: shape.to_vec(),
                found: view.shape().to_vec(),
            });
        }
        let bytes = view.data();
        let numbers: Cow<'a, [f32]> = match view.dtype() {
            Dtype::F32 => match bytemuck::try_cast_slice(bytes) {
                Ok(numbers) if cfg!(target_endian = "little") => Cow::Borrowed(numbers),
                _ => widen(bytes, f32::from_le_bytes),
            },
            Dtype::F16 => widen(bytes, |two| f16::from_le_bytes(two).to_f32()),
            Dtype::BF16 => widen(bytes, |two| bf16::from_le_bytes(two).to_f32()),
            other => {
                return Err(LoadError::Unsupported {
                    file: self.path.to_path_buf(),
                    key: format!("the type of tensor '{tensor}'"),
                    found: format!("{other:?}"),
                    supported: "F32, F16 and BF16".into(),
                });
            }
        };
        // Without a branch per number, so that the compiler can use vectors: x·0 is 0 exactly for finite x.
        if numbers.chunks(4096).any(|chunk| chunk.iter().map(|x| x * 0.0).sum::<f32>() != 0.0) {
            return Err(LoadError::NotFinite { file: self.path.to_path_buf(), tensor });
        }
        Ok(numbers)
    }
}

fn widen<const BYTES: usize>(bytes: &[u8], number: impl Fn([u8; BYTES]) -> f32) -> Cow<'static, [f32]> {
    let (whole, _) = bytes.as_chunks::<BYTES>();
    whole.iter().map(|chunk| number(*chunk)).collect::<Vec<_>>().into()
}
