//! A checkpoint is two files that always belong together: `state.json` names its `.safetensors` file, which was complete on
//! disk before; renaming `state.json` into place is the one moment at which a new checkpoint takes the old one's place.
use super::files;
use crate::{Error, Result};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// What a run needs to go on.
#[derive(Debug)]
pub struct Checkpoint {
    /// Named tensors of any shape, of boolean, integer or floating kind: parameters, moments, generator states.
    pub tensors: Vec<(String, Tensor)>,
    /// The rest.
    pub state: Value,
}

impl Checkpoint {
    /// A tensor by its name.
    ///
    /// # Errors
    /// [`Error::Data`] if the checkpoint holds none of that name.
    pub fn tensor(&self, name: &str) -> Result<&Tensor> {
        self.tensors.iter().find(|(n, _)| n == name).map(|(_, t)| t).ok_or_else(|| Error::Data {
            path: "checkpoint".into(),
            reason: format!("holds no tensor {name:?}"),
            remedy: "it was written by another version of this binary: start the run again in another --out".into(),
        })
    }
}

/// Name of the pointer within the checkpoint directory.
const STATE: &str = "state.json";
/// Seconds of the training steps so far, kept beside the caller's tensors.
const STEP_SECONDS: &str = "run.step_seconds";

/// `state.json`: where the run stands, and which file holds its tensors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Position {
    pub step: i64,
    pub epoch: i64,
    pub wall_s: f64,
    pub peak_rss_bytes: Option<u64>,
    /// Length of `metrics.jsonl`.
    pub metrics_bytes: u64,
    /// File of the tensors.
    pub tensors: String,
    /// [`Checkpoint::state`].
    pub state: Value,
}

/// Step of the checkpoint in `dir`, if there is one.
pub(super) fn position(dir: &Path) -> Result<Option<Position>> {
    files::read_json(&dir.join(STATE))
}

/// Writes the next checkpoint into `dir`; `position.tensors` is chosen here. The one before stays until the new one counts.
pub(super) fn write(dir: &Path, mut position: Position, tensors: &[(String, Tensor)], seconds: &[f32]) -> Result<()> {
    let name = format!("step-{}.safetensors", position.step);
    let taken = self::position(dir)?.is_some_and(|old| old.tensors == name);
    position.tensors = if taken { format!("step-{}-again.safetensors", position.step) } else { name };
    let seconds = Tensor::from_slice(seconds);
    let all = tensors.iter().map(|(n, t)| (n.as_str(), t)).chain([(STEP_SECONDS, &seconds)]);
    files::replace(&dir.join(&position.tensors), &encode(all)?)?;
    files::write_json(&dir.join(STATE), &position)?;
    // Whatever else lies here belongs to no checkpoint any more. What cannot be removed does no harm.
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))?.flatten() {
        if entry.file_name() != STATE && entry.file_name() != position.tensors.as_str() {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// A checkpoint as it was read.
pub(super) struct Saved {
    pub position: Position,
    pub checkpoint: Checkpoint,
    /// Seconds of each training step.
    pub seconds: Vec<f32>,
}

/// The checkpoint in `dir`, if there is one.
pub(super) fn read(dir: &Path) -> Result<Option<Saved>> {
    let Some(position) = position(dir)? else { return Ok(None) };
    let path = dir.join(&position.tensors);
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let mut tensors = decode(&bytes).map_err(|e| Error::Data {
        path,
        reason: format!("damaged: {e}"),
        remedy: "move the run directory away and start the run again".into(),
    })?;
    let mut seconds = Vec::new();
    if let Some(at) = tensors.iter().position(|(name, _)| name == STEP_SECONDS) {
        seconds = Vec::try_from(tensors.swap_remove(at).1)?;
    }
    let checkpoint = Checkpoint { tensors, state: position.state.clone() };
    Ok(Some(Saved { position, checkpoint, seconds }))
}

/// Kinds that both sides have.
const KINDS: [(Kind, Dtype); 10] = [
    (Kind::Bool, Dtype::BOOL),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Int, Dtype::I32),
    (Kind::Int64, Dtype::I64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
];

/// Tensors of any device and layout as a safetensors file.
fn encode<'a>(tensors: impl Iterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<u8>> {
    let mut blocks: Vec<(&str, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, tensor) in tensors {
        if !tensor.defined() {
            return Err(Error::shape("checkpoint", "a tensor that holds something", name));
        }
        let kind = tensor.f_kind()?;
        let Some((_, dtype)) = KINDS.iter().find(|(k, _)| *k == kind) else {
            return Err(Error::shape("checkpoint", "a boolean, integer or floating tensor", (name, kind)));
        };
        if blocks.iter().any(|b| b.0 == name) {
            return Err(Error::shape("checkpoint", "one tensor a name", name));
        }
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        blocks.push((name, *dtype, tensor.size().iter().map(|n| *n as usize).collect(), bytes));
    }
    let views = blocks
        .iter()
        .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
        .collect::<std::result::Result<Vec<_>, _>>();
    let file = views.and_then(|views| safetensors::serialize(views, None));
    file.map_err(|e| Error::shape("checkpoint", "tensors that fit the safetensors format", e.to_string()))
}

fn decode(file: &[u8]) -> std::result::Result<Vec<(String, Tensor)>, String> {
    let file = SafeTensors::deserialize(file).map_err(|e| e.to_string())?;
    let tensor = |(name, view): (String, TensorView)| {
        let kind = KINDS.iter().find(|(_, d)| *d == view.dtype()).map(|(k, _)| *k);
        let kind = kind.ok_or_else(|| format!("{name} has the unknown type {:?}", view.dtype()))?;
        let size: Vec<i64> = view.shape().iter().map(|n| *n as i64).collect();
        Ok((name, Tensor::f_from_data_size(view.data(), &size, kind).map_err(|e| e.to_string())?))
    };
    file.tensors().into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_and_shape_comes_back() {
        let base = Tensor::from_slice(&[0.0, 1.0, -2.5, 1e300, f64::NAN, f64::INFINITY]).view([2, 3]);
        let mut tensors: Vec<(String, Tensor)> = KINDS
            .iter()
            .map(|(kind, _)| (format!("{kind:?}"), base.nan_to_num(0.0, 9.0, 0.0).clamp(-9., 9.).to_kind(*kind)))
            .collect();
        tensors.push(("transposed".into(), base.tr()));
        tensors.push(("grad".into(), base.detach().set_requires_grad(true)));
        tensors.push(("scalar".into(), Tensor::from(0.1f32)));
        tensors.push(("empty".into(), Tensor::zeros([0, 4], (Kind::Int64, Device::Cpu))));
        let back = decode(&encode(tensors.iter().map(|(n, t)| (n.as_str(), t))).unwrap()).unwrap();
        assert_eq!(back.len(), tensors.len());
        for (name, t) in &tensors {
            let (_, b) = back.iter().find(|(n, _)| n == name).unwrap();
            assert_eq!((b.size(), b.kind()), (t.size(), t.kind()), "{name}");
            let bits = |t: &Tensor| {
                let t = t.contiguous();
                let mut bytes = vec![0u8; t.numel() * t.kind().elt_size_in_bytes()];
                t.copy_data_u8(&mut bytes, t.numel());
                bytes
            };
            assert_eq!(bits(b), bits(t), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_stored_is_refused() {
        let complex = Tensor::zeros([1], (Kind::ComplexFloat, Device::Cpu));
        let one = Tensor::from(1.0);
        assert!(encode([("z", &complex)].into_iter()).unwrap_err().to_string().contains("(\"z\", ComplexFloat)"));
        assert!(encode([("a", &Tensor::new())].into_iter()).unwrap_err().to_string().contains("holds something"));
        assert!(encode([("a", &one), ("a", &one)].into_iter()).unwrap_err().to_string().contains("one tensor a name"));
    }

    #[test]
    fn the_pointer_decides_and_the_rest_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let at = |step| Position {
            step,
            epoch: 1,
            wall_s: 0.1,
            peak_rss_bytes: None,
            metrics_bytes: 0,
            tensors: String::new(),
            state: serde_json::json!({ "x": 0.1 }),
        };
        let value = |x: f64| vec![("x".to_string(), Tensor::from(x))];
        let seen = || {
            let Saved { position, checkpoint, seconds } = read(dir).unwrap().unwrap();
            (position.step, checkpoint.tensor("x").unwrap().double_value(&[]), seconds)
        };
        assert!(read(dir).unwrap().is_none());
        write(dir, at(1), &value(1.0), &[0.5]).unwrap();
        assert_eq!(seen(), (1, 1.0, vec![0.5]));
        // Killed after the tensors of step 2 and before the pointer: still step 1.
        std::fs::write(dir.join("step-2.safetensors"), b"half").unwrap();
        std::fs::write(dir.join("state.json.tmp"), b"{").unwrap();
        assert_eq!(seen(), (1, 1.0, vec![0.5]));
        // The same step again never overwrites the file that counts.
        write(dir, at(1), &value(1.5), &[]).unwrap();
        assert_eq!(seen(), (1, 1.5, vec![]));
        write(dir, at(2), &value(2.0), &[]).unwrap();
        assert_eq!(seen(), (2, 2.0, vec![]));
        let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        files.sort();
        assert_eq!(files, ["state.json", "step-2.safetensors"]);
        let path = dir.join("step-2.safetensors");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        let error = read(dir).err().unwrap().to_string();
        assert!(error.contains("step-2.safetensors: damaged") && error.contains("start the run again"), "{error}");
        assert!(seen_error(dir).contains("step-2"));
    }

    fn seen_error(dir: &Path) -> String {
        std::fs::remove_file(dir.join("step-2.safetensors")).unwrap();
        read(dir).err().unwrap().to_string()
    }
}
