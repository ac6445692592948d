//! The weight files: mapped while a model loads, each tensor checked and widened to f32 as it is taken out. Large
//! models come in several files, with an index that says which tensor lies in which; the files' own headers say
//! the same, so the index is read only for the files' names.

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

const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The files that hold a directory's weights, and their size together.
pub(crate) fn find(directory: &Path) -> Result<(Vec<PathBuf>, u64), LoadError> {
    let index = directory.join(INDEX);
    let files = if !directory.join(WHOLE).is_file() && index.is_file() {
        parts(&index)?.into_iter().map(|name| directory.join(name)).collect()
    } else {
        vec![directory.join(WHOLE)]
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

/// The names of the files that an index lists. They must lie beside it.
fn parts(index: &Path) -> Result<BTreeSet<String>, LoadError> {
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
        Some(name) => Err(malformed(format!("'{name}' is not the name of a weight file beside it"))),
        None if names.is_empty() => Err(malformed("it lists no file".into())),
        None => Ok(names),
    }
}

/// Rows of a large tensor that are widened together.
const ROWS_AT_ONCE: usize = 256;

/// Bytes of a large tensor after which what was read of the files need not be in memory any more.
const RELEASED_AT: usize = 8 << 20;

/// Mapped safetensors files.
pub(crate) struct WeightFiles(Vec<(PathBuf, Mmap)>);

impl WeightFiles {
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let open = |path: &PathBuf| {
            let io = |source| LoadError::Io { file: path.clone(), source };
            let file = File::open(path).map_err(io)?;
            // SAFETY: the map is read only while the model loads. Another process that shortened the file in these
            // milliseconds would end this one; model directories are replaced whole, never written in place.
            let map = unsafe { Mmap::map(&file) }.map_err(io)?;
            Ok((path.clone(), map))
        };
        paths.iter().map(open).collect::<Result<_, _>>().map(Self)
    }

    /// The files' bytes, for a fingerprint.
    pub(crate) fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|(_, map)| &map[..])
    }

    /// Every tensor's name and shape, as the headers say.
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

    /// Gives back the memory of what was read so far; who reads it again finds it as it was. Without this a model would
    /// need room for its files beside its packed weights while it loads.
    fn release(&self) {
        #[cfg(unix)]
        for (_, map) in &self.0 {
            // SAFETY: the map is of a file and never written, so that its pages come back from the file. A refusal
            // costs memory and nothing else.
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
    /// Gives back the memory of the tensors read so far.
    pub(crate) fn release(&self) {
        self.maps.release();
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(_, tensors)| tensors.tensor(name).is_ok())
    }

    /// A tensor's shape, whatever it is.
    pub(crate) fn shape(&self, name: &str) -> Result<Vec<usize>, LoadError> {
        self.find(name).map(|(_, view)| view.shape().to_vec())
    }

    /// A tensor of this shape as f32: proven to be there, of the shape, and finite. Borrowed from the map
    /// where it lies there as aligned f32.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Cow<'a, [f32]>, LoadError> {
        match self.shaped(name, shape)? {
            (path, view) if view.dtype() == Dtype::I8 => Err(wrong_type(path, name, view.dtype())),
            (path, view) => numbers((path, name), (view.dtype(), view.data())),
        }
    }

    /// Every row of a tensor in turn, as f32, bytes as the numbers that they are. For tensors that need not be in memory as a
    /// whole.
    pub(crate) fn each_row(
        &self,
        name: &str,
        shape: [usize; 2],
        mut each: impl FnMut(&mut [f32]),
    ) -> Result<(), LoadError> {
        let (path, view) = self.shaped(name, &shape)?;
        let bytes = view.data();
        let mut row = vec![0.0; shape[1]];
        let mut read = 0;
        for some in bytes.chunks(ROWS_AT_ONCE * (bytes.len() / shape[0].max(1)).max(1)) {
            for found in numbers((path, name), (view.dtype(), some))?.chunks_exact(shape[1]) {
                row.copy_from_slice(found);
                each(&mut row);
            }
            read += some.len();
            if read >= RELEASED_AT {
                self.release();
                read = 0;
            }
        }
        Ok(())
    }

    /// A list of `count` whole numbers, each below `end`.
    pub(crate) fn indices(&self, name: &str, (count, end): (usize, usize)) -> Result<Vec<u32>, LoadError> {
        let (path, view) = self.shaped(name, &[count])?;
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
            found: "with numbers of rows that are not there".into(),
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

    fn shaped(&self, name: &str, shape: &[usize]) -> Result<(&'a Path, TensorView<'a>), LoadError> {
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

/// Bytes of a tensor as f32, proven to be finite.
fn numbers<'a>(
    (path, name): (&Path, &str),
    (dtype, bytes): (Dtype, &'a [u8]),
) -> Result<Cow<'a, [f32]>, LoadError> {
    let numbers: Cow<'a, [f32]> = match dtype {
        Dtype::F32 => match bytemuck::try_cast_slice(bytes) {
            Ok(numbers) if cfg!(target_endian = "little") => Cow::Borrowed(numbers),
            _ => widen(bytes, f32::from_le_bytes),
        },
        Dtype::F16 => widen(bytes, |two| f16::from_le_bytes(two).to_f32()),
        Dtype::BF16 => widen(bytes, |two| bf16::from_le_bytes(two).to_f32()),
        Dtype::F64 => widen(bytes, |eight| f64::from_le_bytes(eight) as f32),
        Dtype::I8 => widen(bytes, |one| f32::from(i8::from_le_bytes(one))),
        other => return Err(wrong_type(path, name, other)),
    };
    // Without a branch per number, so that the compiler can use vectors: x·0 is 0 exactly for finite x.
    if numbers.chunks(4096).any(|chunk| chunk.iter().map(|x| x * 0.0).sum::<f32>() != 0.0) {
        return Err(LoadError::NotFinite { file: path.to_path_buf(), tensor: name.to_owned() });
    }
    Ok(numbers)
}

fn wrong_type(path: &Path, tensor: &str, found: Dtype) -> LoadError {
    LoadError::Unsupported {
        file: path.to_path_buf(),
        key: format!("the type of tensor '{tensor}'"),
        found: format!("{found:?}"),
        supported: "F32, F16 and BF16".into(),
    }
}

fn widen<const BYTES: usize>(bytes: &[u8], number: impl Fn([u8; BYTES]) -> f32) -> Cow<'static, [f32]> {
    let (whole, _) = bytes.as_chunks::<BYTES>();
    whole.iter().map(|chunk| number(*chunk)).collect::<Vec<_>>().into()
}
