//! The network of Fig. D.2: (2 x 128C3) - MP2 - (2 x 256C3) - MP2 - (2 x 512C3) - MP2 - (2 x 1024FC) - 10FC, after Courbariaux
//! et al. 2015 and Hubara et al. 2016. Pooling comes before normalisation, as there.
use crate::args::Config;
use tch::{Device, Kind, Tensor};
use thruway::data::cifar10::CLASSES;
use thruway::dist::bernoulli::Code;
use thruway::dist::binary::{BinaryNoise, Shape};
use thruway::error::Result;
use thruway::kernels::delta::Conv;
use thruway::nn::{Linear, Params};
use thruway::optim::mirror::clip_latent;
use thruway::sbn::{BinaryConv2d, BinaryLinear, BinaryWeight, Mode, Proxy, Units};

/// Weight of a batch in the running statistics, and what is added to a variance (PyTorch's defaults).
const MOMENTUM: f64 = 0.1;
const EPS: f64 = 1e-5;

/// Batch normalisation with scale s = 1 and shift b = 0 at the start, before units of `2 F'(0) = 1` (Section 4).
struct Norm {
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl Norm {
    fn new(params: &mut Params, name: &str, n: i64, device: Device) -> Result<Norm> {
        let (ones, zeros) = (Tensor::f_ones([n], (Kind::Float, device))?, Tensor::f_zeros([n], (Kind::Float, device))?);
        Ok(Norm {
            scale: params.add(format!("{name}.weight"), ones.copy(), device)?,
            shift: params.add(format!("{name}.bias"), zeros.copy(), device)?,
            mean: zeros,
            variance: ones,
        })
    }

    fn apply(&self, x: &Tensor, statistics: Statistics) -> Result<Tensor> {
        let (training, momentum) = match statistics {
            Statistics::Running => (false, 0.0),
            Statistics::Batch { momentum } => (true, momentum),
        };
        Ok(x.f_batch_norm(
            Some(&self.scale),
            Some(&self.shift),
            Some(&self.mean),
            Some(&self.variance),
            training,
            momentum,
            EPS,
            false,
        )?)
    }
}

/// What normalisation is by.
#[derive(Debug, Clone, Copy)]
pub enum Statistics {
    /// The batch's own, of which the running ones take up a share.
    Batch { momentum: f64 },
    /// The running ones.
    Running,
}

impl Statistics {
    /// Those of a training step.
    pub const TRAINING: Statistics = Statistics::Batch { momentum: MOMENTUM };
}

/// A layer with binary weights, and whether pooling follows.
enum Layer {
    Conv(BinaryConv2d, bool),
    Linear(BinaryLinear),
}

/// The network: real first and last layer, binary weights between, binary units throughout.
pub struct Network {
    params: Params,
    first: Tensor,
    layers: Vec<Layer>,
    norms: Vec<Norm>,
    last: Linear,
    units: Units,
}

impl Network {
    /// With theta uniform, `eta = F^-1(theta)`; the real layers as PyTorch's. From libtorch's CPU generator.
    pub fn new(config: &Config, device: Device) -> Result<Network> {
        let mut params = Params::default();
        let w = config.width;
        // standard logistic noise is the KL divergence; the others have no standard scale but that of the activations
        let weight_noise = match config.weight_noise {
            Shape::Logistic => BinaryNoise::new(Shape::Logistic),
            shape => BinaryNoise::unit_slope(shape),
        };
        let bound = 1.0 / 27f64.sqrt();
        let first = Tensor::f_empty([w, 3, 3, 3], (Kind::Float, Device::Cpu))?.f_uniform_(-bound, bound)?;
        let first = params.add("first.weight".into(), first, device)?;
        let mut norms = vec![Norm::new(&mut params, "norms.0", w, device)?];
        let mut layers = vec![];
        let convs =
            [(w, w, true), (w, 2 * w, false), (2 * w, 2 * w, true), (2 * w, 4 * w, false), (4 * w, 4 * w, true)];
        let linears = [(4 * w * 16, 8 * w), (8 * w, 8 * w)]; // 16 places are left after three poolings
        for (inputs, outputs, pool) in convs {
            let name = format!("layers.{}", layers.len());
            let conv = Conv::square(1, 1);
            let conv = BinaryConv2d::new(&mut params, &name, [inputs, outputs], 3, conv, weight_noise, device)?;
            layers.push(Layer::Conv(conv, pool));
            norms.push(Norm::new(&mut params, &format!("norms.{}", norms.len()), outputs, device)?);
        }
        for (inputs, outputs) in linears {
            let name = format!("layers.{}", layers.len());
            layers.push(Layer::Linear(BinaryLinear::new(&mut params, &name, inputs, outputs, weight_noise, device)?));
            norms.push(Norm::new(&mut params, &format!("norms.{}", norms.len()), outputs, device)?);
        }
        let last = Linear::new(&mut params, "last", 8 * w, CLASSES.len() as i64, device)?;
        let noise = BinaryNoise::unit_slope(config.noise);
        let noise = BinaryNoise::with_scale(config.noise, noise.scale() * config.noise_scale)?;
        let units = Units { noise, proxy: Proxy::Matched, code: Code::PlusMinus };
        let network = Network { params, first, layers, norms, last, units };
        let _guard = tch::no_grad_guard();
        for w in network.weights() {
            let _ = w.eta().detach().f_mul_scalar_(config.weight_spread)?;
        }
        Ok(network)
    }

    /// Parameters that are learnt.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Running means and variances, which are not.
    pub fn buffers(&self) -> Vec<(String, &Tensor)> {
        let mut all = vec![];
        for (i, n) in self.norms.iter().enumerate() {
            all.push((format!("norms.{i}.running_mean"), &n.mean));
            all.push((format!("norms.{i}.running_var"), &n.variance));
        }
        all
    }

    /// The binary weights.
    pub fn weights(&self) -> impl Iterator<Item = &BinaryWeight> {
        self.layers.iter().map(|l| match l {
            Layer::Conv(c, _) => c.weight(),
            Layer::Linear(l) => l.weight(),
        })
    }

    /// Clips every latent weight (Eq. 11).
    pub fn clip(&self) -> Result<()> {
        self.weights().try_for_each(|w| clip_latent(w.eta(), w.noise()))
    }

    /// Standardised images `[B, 3, 32, 32]` -> class scores `[B, 10]`. One draw of the weights serves the batch.
    pub fn forward(&self, images: &Tensor, mode: &mut Mode, statistics: Statistics) -> Result<Tensor> {
        let a = images.f_conv2d(&self.first, None::<&Tensor>, [1, 1], [1, 1], [1, 1], 1)?;
        let mut x = self.units.get(&self.norms[0].apply(&a, statistics)?, mode)?;
        for (layer, norm) in self.layers.iter().zip(&self.norms[1..]) {
            let a = match layer {
                Layer::Conv(conv, pool) => {
                    let a = conv.forward(&x, mode)?;
                    if *pool { a.f_max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false)? } else { a }
                }
                Layer::Linear(linear) => linear.forward(&x.f_flatten(1, -1)?, mode)?,
            };
            x = self.units.get(&norm.apply(&a, statistics)?, mode)?;
        }
        self.last.forward(&x)
    }
}
