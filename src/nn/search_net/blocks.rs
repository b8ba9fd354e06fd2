//! Convolution, batch norm and the residual block between two stages.
use crate::error::{Error, Result};
use crate::nn::Params;
use tch::{Device, Kind, Tensor};

/// Parameters, and what is kept beside them.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub params: Params,
    /// Running statistics of batch norm, under PyTorch's names.
    pub buffers: Vec<(String, Tensor)>,
}

/// A square convolution.
#[derive(Debug)]
pub(super) struct Conv {
    weight: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv {
    /// PyTorch's default initialisation, drawn from libtorch's CPU generator in PyTorch's order: the weight, then the bias
    /// where `bias` says so.
    pub fn new(
        store: &mut Store,
        name: &str,
        sizes: [i64; 3],
        stride: i64,
        bias: bool,
        device: Device,
    ) -> Result<Conv> {
        let [from, to, side] = sizes;
        if from < 1 || to < 1 {
            return Err(Error::range(format!("{name}: channels"), "at least 1", format!("{from} -> {to}")));
        }
        let options = (Kind::Float, Device::Cpu);
        let inputs = (from * side * side) as f64;
        // the arithmetic of kaiming_uniform_(a = sqrt 5), step by step
        let slope = 5f64.sqrt();
        let bound = 3f64.sqrt() * ((2.0 / (1.0 + slope * slope)).sqrt() / inputs.sqrt());
        let weight = Tensor::f_empty([to, from, side, side], options)?.f_uniform_(-bound, bound)?;
        let weight = store.params.add(format!("{name}.weight"), weight, device)?;
        if bias {
            // Batch norm without a shift follows: it takes the bias out again, whose gradient is 0. It is kept for the layout,
            // and the count, of the published network, and never added.
            let bound = 1.0 / inputs.sqrt();
            let bias = Tensor::f_empty([to], options)?.f_uniform_(-bound, bound)?;
            let _kept = store.params.add(format!("{name}.bias"), bias, device)?;
        }
        Ok(Conv { weight, stride, padding: side / 2 })
    }

    /// `[B, from, H, W] -> [B, to, H / stride, W / stride]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        Ok(x.f_conv2d(&self.weight, None::<Tensor>, stride, padding, [1, 1], 1)?)
    }
}

/// Batch norm: in the search cells without scale, shift and running statistics, so that every evaluation uses its own batch;
/// elsewhere with all of them, momentum 0.1.
#[derive(Debug)]
pub(super) struct Norm {
    /// Scale, shift, running mean and running variance.
    kept: Option<[Tensor; 4]>,
}

impl Norm {
    pub fn new(store: &mut Store, name: &str, channels: i64, kept: bool, device: Device) -> Result<Norm> {
        if !kept {
            return Ok(Norm { kept: None });
        }
        let (zeros, ones) = (
            || Tensor::f_zeros([channels], (Kind::Float, device)),
            || Tensor::f_ones([channels], (Kind::Float, device)),
        );
        let scale = store.params.add(format!("{name}.weight"), ones()?, device)?;
        let shift = store.params.add(format!("{name}.bias"), zeros()?, device)?;
        let (mean, variance) = (zeros()?, ones()?);
        store.buffers.push((format!("{name}.running_mean"), mean.shallow_clone()));
        store.buffers.push((format!("{name}.running_var"), variance.shallow_clone()));
        Ok(Norm { kept: Some([scale, shift, mean, variance]) })
    }

    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let [scale, shift, mean, variance] = match &self.kept {
            Some(all) => all.each_ref().map(Some),
            None => [None; 4],
        };
        Ok(x.f_batch_norm(scale, shift, mean, variance, train || self.kept.is_none(), 0.1, 1e-5, true)?)
    }
}

/// Convolution and batch norm; the ReLU before them is the caller's, who may share it.
#[derive(Debug)]
pub(super) struct ConvNorm {
    conv: Conv,
    norm: Norm,
}

impl ConvNorm {
    pub fn new(
        store: &mut Store,
        name: &str,
        sizes: [i64; 3],
        stride: i64,
        kept: bool,
        bias: bool,
        device: Device,
    ) -> Result<ConvNorm> {
        Ok(ConvNorm {
            conv: Conv::new(store, &format!("{name}.conv"), sizes, stride, bias, device)?,
            norm: Norm::new(store, &format!("{name}.norm"), sizes[1], kept, device)?,
        })
    }

    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        self.norm.forward(&self.conv.forward(x)?, train)
    }
}

/// The residual block that halves the image and doubles the channels.
#[derive(Debug)]
pub(super) struct Reduction {
    a: ConvNorm,
    b: ConvNorm,
    down: Conv,
}

impl Reduction {
    pub fn new(store: &mut Store, name: &str, from: i64, device: Device) -> Result<Reduction> {
        let to = 2 * from;
        Ok(Reduction {
            a: ConvNorm::new(store, &format!("{name}.a"), [from, to, 3], 2, true, false, device)?,
            b: ConvNorm::new(store, &format!("{name}.b"), [to, to, 3], 1, true, false, device)?,
            down: Conv::new(store, &format!("{name}.down"), [from, to, 1], 1, false, device)?,
        })
    }

    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let y = self.a.forward(&x.f_relu()?, train)?;
        let y = self.b.forward(&y.f_relu()?, train)?;
        let halved = x.f_avg_pool2d([2, 2], [2, 2], [0, 0], false, true, None::<i64>)?;
        Ok(self.down.forward(&halved)? + y)
    }
}
