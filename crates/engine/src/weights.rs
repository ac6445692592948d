//! Weight files in the safetensors format. They are memory-mapped while a model loads, and each tensor is checked and
//! widened to f32 when it is read. Large models have several files and an index from tensors to files. The headers of
//! the files hold the same information, so only the file names are taken from the index.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::Deserialize;

use crate::LoadError;

const SINGLE_FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Finds the weight files of a directory. Returns their paths and their total size in bytes.
///
/// # Errors
/// A file is missing, or the index is malformed.
pub(crate) fn find(directory: &Path) -> Result<(Vec<PathBuf>, u64), LoadError> {
    let index = directory.join(INDEX);
    let files = if !directory.join(SINGLE_FILE).is_file() && index.is_file() {
        indexed_files(&index)?.into_iter().map(|name| directory.join(name)).collect()
    } else {
        vec![directory.join(SINGLE_FILE)]
    };
    let mut bytes = 0;
    for file in &files {
        bytes += fs::metadata(file).map_err(|source| LoadError::Io { file: file.clone(), source })?.len();
    }
    Ok((files, bytes))
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The names of the files that an index lists. They must be in the same directory.
fn indexed_files(index: &Path) -> Result<BTreeSet<String>, LoadError> {
    let malformed = |reason: String| LoadError::Malformed {
        file: index.to_path_buf(),
        expected: "an index of weight files",
        reason,
    };
    let text = match fs::read(index) {
        Ok(text) => text,
        Err(source) => return Err(LoadError::Io { file: index.to_path_buf(), source }),
    };
    let Index { weight_map } = serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
    let names: BTreeSet<String> = weight_map.into_values().collect();
    match names.iter().find(|name| name.contains(['/', '\\']) || !name.ends_with(".safetensors")) {
        Some(name) => {
            Err(malformed(format!("'{name}' is not the name of a weight file in the same directory")))
        }
        None if names.is_empty() => Err(malformed("it lists no file".into())),
        None => Ok(names),
    }
}

/// Rows of a large tensor that are widened at a time.
const ROWS_PER_STEP: usize = 256;

/// Bytes read of a large tensor after which the mapped pages are released.
const RELEASE_INTERVAL_BYTES: usize = 8 << 20;

/// Mapped safetensors files.
pub(crate) struct WeightFiles(Vec<(PathBuf, Mmap)>);

impl WeightFiles {
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let open = |path: &PathBuf| {
            let io = |source| LoadError::Io { file: path.clone(), source };
            let file = File::open(path).map_err(io)?;
            // SAFETY: the map is read only while the model loads. If another process truncated the file during this
            // time, an access would raise SIGBUS; model directories are replaced as a whole and never written in place.
            let map = unsafe { Mmap::map(&file) }.map_err(io)?;
            Ok((path.clone(), map))
        };
        paths.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// The files' bytes, for a fingerprint.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(_, map)| &map[..])
    }

    /// Name and shape of every tensor, from the headers.
    pub(crate) fn shapes(&self) -> Result<Vec<(String, Vec<usize>)>, LoadError> {
        let files = self.tensors()?.files;
        let shapes = files.iter().flat_map(|(_, tensors)| {
            tensors.iter().map(|(name, view)| (name.to_owned(), view.shape().to_vec()))
        });
        Ok(shapes.collect())
    }

    /// Reads the headers.
    pub(crate) fn tensors(&self) -> Result<Tensors<'_>, LoadError> {
        let files = self.0.iter().map(|(path, map)| match SafeTensors::deserialize(map) {
            Ok(tensors) => Ok((path.as_path(), tensors)),
            Err(error) => Err(LoadError::Malformed {
                file: path.clone(),
                expected: "safetensors",
                reason: error.to_string(),
            }),
        });
        files.collect::<Result<Vec<_>, _>>().map(|files| Tensors { files, maps: self })
    }

    /// Releases the pages read so far from memory; a later access reads them again. Otherwise a load would need memory
    /// for the files in addition to the packed weights.
    fn release(&self) {
        #[cfg(unix)]
        for (_, map) in &self.0 {
            // SAFETY: the map belongs to a file and is never written, so its pages can be read from the file again. If
            // the call fails, the pages stay in memory.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }
}

/// The tensors of weight files, by name.
pub(crate) struct Tensors<'a> {
    files: Vec<(&'a Path, SafeTensors<'a>)>,
    maps: &'a WeightFiles,
}

impl<'a> Tensors<'a> {
    /// Releases the memory of the tensors read so far.
    pub(crate) fn release(&self) {
        self.maps.release();
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(_, tensors)| tensors.tensor(name).is_ok())
    }

    /// Shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>, LoadError> {
        self.find(name).map(|(_, view)| view.shape().to_vec())
    }

    /// Reads a tensor as f32. Borrows from the map if the file holds aligned f32.
    ///
    /// # Errors
    /// The tensor is missing, has another shape, or contains a value that is not finite.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>, LoadError> {
        match self.find_shaped(name, shape)? {
            (path, view) if view.dtype() == Dtype::I8 => Err(wrong_type(path, name, view.dtype())),
            (path, view) => to_f32(path, name, view.dtype(), view.data()),
        }
    }

    /// Calls `each` with every row of a tensor as f32. Signed bytes are converted without a scale. Only a part of the
    /// tensor is in memory at a time.
    pub(crate) fn each_row(
        &self,
        name: &str,
        shape: [usize; 2],
        mut each: impl FnMut(&mut [f32]),
    ) -> Result<(), LoadError> {
        let (path, view) = self.find_shaped(name, &shape)?;
        let bytes = view.data();
        let mut row = vec![0.0; shape[1]];
        let mut read = 0;
        for part in bytes.chunks(ROWS_PER_STEP * (bytes.len() / shape[0].max(1)).max(1)) {
            for values in to_f32(path, name, view.dtype(), part)?.chunks_exact(shape[1]) {
                row.copy_from_slice(values);
                each(&mut row);
            }
            read += part.len();
            if read >= RELEASE_INTERVAL_BYTES {
                self.release();
                read = 0;
            }
        }
        Ok(())
    }

    /// Reads a tensor of `count` integers, each below `end`.
    pub(crate) fn indices(&self, name: &str, count: usize, end: usize) -> Result<Vec<u32>, LoadError> {
        let (path, view) = self.find_shaped(name, &[count])?;
        let bytes = view.data();
        let wide: Vec<i64> = match view.dtype() {
            Dtype::I64 => bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            Dtype::I32 => {
                bytes.as_chunks().0.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect()
            }
            Dtype::U32 => {
                bytes.as_chunks().0.iter().map(|bytes| i64::from(u32::from_le_bytes(*bytes))).collect()
            }
            Dtype::U16 => {
                bytes.as_chunks().0.iter().map(|bytes| i64::from(u16::from_le_bytes(*bytes))).collect()
            }
            other => return Err(wrong_type(path, name, other)),
        };
        let index = |index: i64| u32::try_from(index).ok().filter(|index| (*index as usize) < end);
        wide.iter().map(|x| index(*x)).collect::<Option<_>>().ok_or_else(|| LoadError::Unsupported {
            file: path.to_path_buf(),
            key: format!("tensor '{name}'"),
            found: "an index without a row".into(),
            supported: format!("rows 0 to {}", end - 1),
        })
    }

    fn find(&self, name: &str) -> Result<(&'a Path, TensorView<'a>), LoadError> {
        let found = self.files.iter().find_map(|(path, tensors)| Some((*path, tensors.tensor(name).ok()?)));
        found.ok_or_else(|| LoadError::MissingTensor {
            file: self.files.first().map_or_else(PathBuf::new, |(path, _)| path.to_path_buf()),
            tensor: name.to_owned(),
        })
    }

    fn find_shaped(&self, name: &str, shape: &[usize]) -> Result<(&'a Path, TensorView<'a>), LoadError> {
        let (path, view) = self.find(name)?;
        if view.shape() == shape {
            return Ok((path, view));
        }
        Err(LoadError::WrongShape {
            file: path.to_path_buf(),
            tensor: name.to_owned(),
            expected: shape.to_vec(),
            found: view.shape().to_vec(),
        })
    }
}

/// Converts a tensor's bytes to f32, and checks that all values are finite.
fn to_f32<'a>(path: &Path, name: &str, dtype: Dtype, bytes: &'a [u8]) -> Result<Cow<'a, [f32]>, LoadError> {
    let values: Cow<'a, [f32]> = match dtype {
        Dtype::F32 => match bytemuck::try_cast_slice(bytes) {
            Ok(values) if cfg!(target_endian = "little") => Cow::Borrowed(values),
            _ => widen(bytes, f32::from_le_bytes),
        },
        Dtype::F16 => widen(bytes, |two| f16::from_le_bytes(two).to_f32()),
        Dtype::BF16 => widen(bytes, |two| bf16::from_le_bytes(two).to_f32()),
        Dtype::F64 => widen(bytes, |eight| f64::from_le_bytes(eight) as f32),
        Dtype::I8 => widen(bytes, |one| f32::from(i8::from_le_bytes(one))),
        other => return Err(wrong_type(path, name, other)),
    };
    // x·0 is 0 exactly for finite x. The sum needs no branch per value, so the compiler can vectorize it.
    if values.chunks(4096).any(|chunk| chunk.iter().map(|x| x * 0.0).sum::<f32>() != 0.0) {
        return Err(LoadError::NotFinite { file: path.to_path_buf(), tensor: name.to_owned() });
    }
    Ok(values)
}

fn wrong_type(path: &Path, tensor: &str, found: Dtype) -> LoadError {
    LoadError::Unsupported {
        file: path.to_path_buf(),
        key: format!("the type of tensor '{tensor}'"),
        found: format!("{found:?}"),
        supported: "F32, F16 and BF16".into(),
    }
}

fn widen<const BYTES: usize>(bytes: &[u8], convert: impl Fn([u8; BYTES]) -> f32) -> Cow<'static, [f32]> {
    let (whole, _) = bytes.as_chunks::<BYTES>();
    whole.iter().map(|chunk| convert(*chunk)).collect::<Vec<_>>().into()
}
