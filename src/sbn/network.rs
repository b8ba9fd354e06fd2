//! A network of binary layers and a head, described once and run under any method of the family.
use super::draws::Draws;
use super::head::Head;
use super::layer::{Layer, Spec, shaped};
use super::objective::Objective;
use super::registry::Rule;
use crate::dist::binary::{BinaryNoise, Shape};
use crate::error::{Error, Result};
use crate::exact::sbn as oracle;
use crate::nn::Params;
use crate::noise::Noise;
use tch::{Device, Kind, Tensor};

/// What a network is.
///
/// # Example
/// The 5-5-5 network of the paper's Section C.1, one step of PSA:
/// ```
/// use tch::{Device, Kind, Tensor};
/// use thruway::noise::HostNoise;
/// use thruway::sbn::{Description, Knobs, Method, Network, Objective, Spec};
///
/// tch::manual_seed(0);
/// let network = Network::new(
///     &Description {
///         input: vec![2],
///         layers: vec![Spec::Linear { units: 5 }; 3],
///         scores: 1,
///         objective: Objective::Logistic,
///         ..Description::default()
///     },
///     Kind::Double,
///     Device::Cpu,
/// )?;
/// let x = Tensor::from_slice(&[0.3f64, -1.0, 0.5, 0.2]).view([2, 2]);
/// let y = Tensor::from_slice(&[1.0f64, -1.0]);
/// let psa = Method::Psa.build(&Knobs::default())?;
/// let loss = network.loss(&x, &y, &*psa, &mut HostNoise::new(0))?;
/// loss.surrogate.mean(Kind::Double).backward(); // deposits the estimate in every parameter
/// assert!(network.params().iter().all(|(_, p)| p.grad().defined()));
/// # Ok::<(), thruway::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Description {
    /// Shape of one input: `[features]` or `[channels, height, width]`.
    pub input: Vec<i64>,
    /// The binary layers, from the input on; at least one.
    pub layers: Vec<Spec>,
    /// Class scores K.
    pub scores: i64,
    /// The loss on them.
    pub objective: Objective,
    /// The noise of every unit.
    pub noise: BinaryNoise,
    /// Gives each layer a scale and a shift for every output channel.
    pub affine: bool,
}

impl Default for Description {
    /// No layers yet; ten classes, cross-entropy, logistic noise of scale 1 (the paper's), no scale and shift.
    fn default() -> Self {
        Description {
            input: vec![],
            layers: vec![],
            scores: 10,
            objective: Objective::CrossEntropy,
            noise: BinaryNoise::new(Shape::Logistic),
            affine: false,
        }
    }
}

/// What a method returns for a batch.
#[derive(Debug)]
pub struct Loss {
    /// `[B]`: its gradient in the parameters is the method's estimate for each datum. Take the mean, then `backward`.
    pub surrogate: Tensor,
    /// `[B]`, detached: the method's own objective. That is f at the draw (averaged over flips with the enhanced head), or
    /// the relaxed loss of a relaxation.
    pub value: Tensor,
    /// Class scores `[B, K]` behind it, detached.
    pub scores: Tensor,
}

/// A batch, and what a baseline knows about it.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// `[B, ..]`, real.
    pub input: &'a Tensor,
    /// `[B]`, as the objective wants it.
    pub target: &'a Tensor,
    /// A value for each datum, `[B]`, for methods with a baseline of their caller's.
    pub baseline: Option<&'a Tensor>,
}

/// One draw of all states.
#[derive(Debug)]
pub struct Sample {
    /// Pre-activations of each layer, `[B, units]`.
    pub preactivations: Vec<Tensor>,
    /// States ±1 of each layer, `[B, units]`.
    pub states: Vec<Tensor>,
    /// Class scores `[B, K]`.
    pub scores: Tensor,
}

/// A stochastic binary network: `x^k = sgn(a^k(x^{k-1}) - Z^k)`, then a head.
///
/// Parameters are named `layers.0.weight`, `layers.0.bias`, ..., `head.weight`, `head.bias`.
#[derive(Debug)]
pub struct Network {
    params: Params,
    layers: Vec<Layer>,
    head: Head,
    input: Vec<i64>,
    objective: Objective,
    noise: BinaryNoise,
}

impl Network {
    /// A network with PyTorch's default initialisation, uniform in ±1/sqrt(fan-in), layer by layer, weight before bias,
    /// drawn from libtorch's CPU generator in float32 whatever kind and device, so that one seed gives one network.
    ///
    /// # Errors
    /// [`Error::Range`] for sizes below 1; [`Error::Shape`] for a convolution above a linear layer.
    pub fn new(description: &Description, kind: Kind, device: Device) -> Result<Self> {
        let Description { input, layers: specs, scores, objective, noise, affine } = description;
        if specs.is_empty() || *scores < 1 || input.is_empty() {
            let got = format!("{} layers, {scores} scores, input {input:?}", specs.len());
            return Err(Error::range("binary layers, scores and axes of the input", "at least 1 each", got));
        }
        let (mut params, mut layers, mut below) = (Params::default(), vec![], input.clone());
        for (k, spec) in specs.iter().enumerate() {
            let layer = Layer::new(&mut params, &format!("layers.{k}"), *spec, &below, *affine, kind, device)?;
            below = layer.units().to_vec();
            layers.push(layer);
        }
        let n: i64 = below.iter().product();
        let bound = 1.0 / (n as f64).sqrt();
        let mut draw = |what: &str, size: &[i64]| -> Result<Tensor> {
            let value =
                Tensor::f_empty(size, (Kind::Float, Device::Cpu))?.f_uniform_(-bound, bound)?.f_to_kind(kind)?;
            params.add(format!("head.{what}"), value, device)
        };
        let head = Head { weight: draw("weight", &[*scores, n])?, bias: draw("bias", &[*scores])?, below };
        let (input, objective, noise) = (input.clone(), objective.clone(), *noise);
        Ok(Network { params, layers, head, input, objective, noise })
    }

    /// The parameters.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The binary layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The loss on class scores.
    pub fn objective(&self) -> &Objective {
        &self.objective
    }

    /// The noise of every unit.
    pub fn noise(&self) -> &BinaryNoise {
        &self.noise
    }

    /// Runs a method on a batch: input `[B, ..]`, target `[B]`.
    ///
    /// # Errors
    /// [`Error::Shape`] where they do not fit the network; those of the method and of the noise.
    pub fn loss(&self, input: &Tensor, target: &Tensor, method: &dyn Rule, noise: &mut dyn Noise) -> Result<Loss> {
        self.run(&Batch { input, target, baseline: None }, method, &mut Draws::random(noise))
    }

    /// The same with all states given, `[.., B, units]` for each layer: for fixtures and enumeration.
    ///
    /// # Errors
    /// As [`Network::loss`]; [`Error::Usage`] for a method that takes noise beyond the states.
    pub fn loss_at(&self, input: &Tensor, target: &Tensor, method: &dyn Rule, states: &[Tensor]) -> Result<Loss> {
        self.run(&Batch { input, target, baseline: None }, method, &mut Draws::given(states))
    }

    /// The general form of [`Network::loss`].
    ///
    /// # Errors
    /// As there.
    pub fn run(&self, batch: &Batch, method: &dyn Rule, draws: &mut Draws) -> Result<Loss> {
        let x = shaped("network", batch.input, &self.input, false)?;
        method.loss(self, &Batch { input: &x, ..*batch }, draws)
    }

    /// Draws all states once, without a graph.
    ///
    /// # Errors
    /// As [`Network::loss`].
    pub fn sample(&self, input: &Tensor, noise: &mut dyn Noise) -> Result<Sample> {
        let _guard = tch::no_grad_guard();
        let (mut preactivations, mut states) = (vec![], vec![]);
        let mut x = shaped("network", input, &self.input, false)?;
        for layer in &self.layers {
            let a = layer.preactivation(&x)?;
            x = self.noise.draw(&a, noise)?;
            preactivations.push(a);
            states.push(x.shallow_clone());
        }
        Ok(Sample { preactivations, states, scores: self.head.scores(&x)? })
    }

    /// The network with `r` copies of every parameter, as leaves `[r, ..]`: one backward then gives `r` estimates, each in
    /// its own copy. Inputs are `[B, in]` or `[r, B, in]`. Linear layers only.
    ///
    /// # Errors
    /// [`Error::Usage`] for convolutions.
    pub fn replicate(&self, r: i64) -> Result<Network> {
        self.with_parameters(&mut |_, own| {
            let size = [&[r][..], &own.size()].concat();
            Ok(own.detach().f_expand(&size[..], false)?.f_contiguous()?)
        })
    }

    /// The same network on other parameters, given by name from the present ones: of the same shapes, or with one leading
    /// axis of replicas more where all layers are linear. Replicas must be equal in value: the product with Delta is made
    /// once for all. They may be results of a computation, whose own leaves then get the gradients; a tensor without a graph
    /// becomes a leaf.
    ///
    /// # Errors
    /// [`Error::Usage`] for replicas of a convolution or unequal ones; [`Error::Shape`] for another shape; those of `get`.
    pub fn with_parameters(&self, get: &mut dyn FnMut(&str, &Tensor) -> Result<Tensor>) -> Result<Network> {
        let mut params = Params::default();
        let mut take = |name: &str| -> Result<Tensor> {
            let (_, own) = self.params.iter().find(|(n, _)| *n == name).expect("a parameter of this network");
            let value = get(name, own)?;
            if value.dim() == own.dim() + 1 {
                if self.layers.iter().any(Layer::is_conv) {
                    return Err(Error::Usage("only a network of linear layers can be replicated".into()));
                }
                let first = value.f_narrow(0, 0, 1.min(value.size()[0]))?.f_expand_as(&value)?;
                // a NaN is no reason to refuse: what is wrong with it is said elsewhere
                let same = |t: &Tensor| -> Result<Tensor> { Ok(t.detach().f_nan_to_num(0.0, None, None)?) };
                if !same(&value)?.f_equal(&same(&first)?)? {
                    let why = format!("the replicas of {name} differ: give them one value, or run a network for each");
                    return Err(Error::Usage(why));
                }
            }
            if !value.size().ends_with(&own.size()) || value.dim() > own.dim() + 1 {
                let rule = format!("{:?}, or [replicas, ..] of it", own.size());
                return Err(Error::shape("parameters", format!("{name} {rule}"), value.size()));
            }
            params.add(name.to_string(), value, own.device())
        };
        let layers = self
            .layers
            .iter()
            .enumerate()
            .map(|(k, layer)| layer.with(&mut |part| take(&format!("layers.{k}.{part}"))))
            .collect::<Result<_>>()?;
        let head = Head { weight: take("head.weight")?, bias: take("head.bias")?, below: self.head.below.clone() };
        let (input, objective, noise) = (self.input.clone(), self.objective.clone(), self.noise);
        Ok(Network { params, layers, head, input, objective, noise })
    }

    /// `E f` of each datum by enumeration, `[B]`, differentiable in all parameters: the true gradient (Eqs. 5-6). For
    /// narrow layers, see [`crate::exact::sbn`]; in float64 to be an oracle.
    ///
    /// # Errors
    /// [`Error::Range`] for layers too wide to enumerate.
    pub fn exact_loss(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.exact_mean(input, target, &|scores, target| self.objective.values(scores, target))
    }

    /// The mean over all states of the probability of the target's class, `[B]`: what the ensemble of Eq. 16 predicts.
    ///
    /// # Errors
    /// As [`Network::exact_loss`]; [`Error::Usage`] for a custom objective.
    pub fn exact_likelihood(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        self.exact_mean(input, target, &|scores, target| {
            let p = self.objective.probabilities(scores)?;
            let size = p.size();
            let class = self.objective.classes(target)?.f_expand(&size[..size.len() - 1], false)?;
            Ok(p.f_gather(-1, &class.f_unsqueeze(-1)?, false)?.f_squeeze_dim(-1)?)
        })
    }

    /// f from scores `[B, S, K]` and targets `[B, 1]` to values `[B, S]`.
    fn exact_mean(
        &self,
        input: &Tensor,
        target: &Tensor,
        f: &dyn Fn(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        self.on_chain(input, &|chain| {
            oracle::expectation(chain, &|states| {
                let scores = self.head.scores(states)?.f_unsqueeze(0)?;
                f(&scores.f_expand([input.size()[0], -1, -1], false)?, &target.f_unsqueeze(-1)?)
            })
        })
    }

    /// Every joint state of all layers with its probability for each datum, without a graph.
    ///
    /// # Errors
    /// [`Error::Range`] for more joint states than can be listed.
    pub fn paths(&self, input: &Tensor) -> Result<oracle::Paths> {
        let _guard = tch::no_grad_guard();
        self.on_chain(input, &|chain| oracle::paths(chain))
    }

    fn on_chain<T>(&self, input: &Tensor, f: &dyn Fn(&oracle::Chain) -> Result<T>) -> Result<T> {
        let input = shaped("network", input, &self.input, false)?;
        let maps: Vec<_> = self.layers.iter().map(|layer| move |x: &Tensor| layer.preactivation(x)).collect();
        let layers = self.layers.iter().zip(&maps);
        let layers = layers.map(|(l, map)| oracle::Layer { units: l.units().to_vec(), preactivation: map }).collect();
        f(&oracle::Chain { noise: &self.noise, input: &input, layers })
    }
}
