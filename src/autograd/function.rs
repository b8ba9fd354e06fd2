//! [`Function`]: a forward and a backward closure as one operation of the graph.
use super::ffi;
use crate::{Error, Result};
use std::any::Any;
use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use tch::Tensor;
use torch_sys::C_tensor;

/// An operation with a gradient of your own: what `torch.autograd.Function` is in Python.
///
/// Name the inputs, say what the backward will need, then give [`apply`](Self::apply) the two closures. The result joins
/// the graph like that of any built-in operation.
///
/// ```
/// use tch::{Kind, Tensor};
/// use thruway::autograd::Function;
///
/// // y = x^3, with a gradient written by hand.
/// let x = Tensor::from_slice(&[1f64, 2., -3.]).set_requires_grad(true);
/// let y = Function::new("Cube")
///     .inputs(&[&x])
///     .save(&[&x])
///     .apply(
///         || Ok(vec![x.pow_tensor_scalar(3)]),
///         |b| Ok(vec![Some(b.grad(0)? * b.saved()[0].square() * 3.)]),
///     )?
///     .remove(0);
/// y.sum(Kind::Double).f_backward()?;
/// assert_eq!(Vec::<f64>::try_from(x.grad())?, [3., 12., 27.]);
/// # anyhow::Ok(())
/// ```
///
/// # What to save, and where
///
/// - Inputs, and tensors made beforehand: [`save`](Self::save). Outputs: [`save_output`](Self::save_output). Both are
///   checked: a saved tensor changed in place between forward and backward is an error, not a wrong gradient.
/// - Anything else, tensors included, may simply be moved into the backward closure. Such tensors are not checked, and an
///   **output must never be captured** (nor a clone of its handle): output, node and closure would keep each other alive
///   for good. That is what `save_output` is for.
/// - Saved tensors come back without their graph, so nothing done to them in the backward can reach the graph by accident.
///
/// # Life of the backward closure
///
/// It runs once per backward pass that reaches the node, without grad mode, possibly on another thread (hence `Send`), and
/// never twice at once. It is dropped, with all it holds, as soon as it cannot be needed any more: after a backward
/// without `keep_graph`, with the last tensor of the graph, or at once if grad mode is off or no input requires a gradient.
///
/// # When something goes wrong
///
/// An `Err` or a panic in the backward, a wrong number of gradients and a gradient of the wrong shape all come back as `Err`
/// from [`Tensor::f_backward`] and [`Tensor::f_run_backward`] (and as a panic from the variants without `f_`), with a
/// message that starts with the function's name. The same goes for a second backward through a graph that was not kept, and
/// for a derivative of the gradient: double backward is refused, never silently zero.
///
/// # Cost
///
/// That of a built-in operation: about half a microsecond to record the node.
#[must_use = "nothing happens before `apply`"]
pub struct Function<'a> {
    name: &'a str,
    inputs: Vec<*const C_tensor>,
    saved: Vec<*const C_tensor>,
    saved_outputs: Vec<i64>,
    non_differentiable: Vec<i64>,
    borrows: std::marker::PhantomData<&'a Tensor>,
}

impl<'a> Function<'a> {
    /// A function of this name, which heads its error messages and shows up as `grad_fn`.
    pub fn new(name: &'a str) -> Self {
        Function {
            name,
            inputs: Vec::new(),
            saved: Vec::new(),
            saved_outputs: Vec::new(),
            non_differentiable: Vec::new(),
            borrows: std::marker::PhantomData,
        }
    }

    /// The tensors that gradients may flow to, in the order in which the backward returns them. Inputs that require no
    /// gradient may be listed too; their entry in the returned vector is ignored.
    pub fn inputs(mut self, tensors: &[&'a Tensor]) -> Self {
        self.inputs.extend(tensors.iter().map(|t| t.as_ptr()));
        self
    }

    /// Keeps tensors for the backward: [`Backward::saved`], in the order of the calls.
    pub fn save(mut self, tensors: &[&'a Tensor]) -> Self {
        self.saved.extend(tensors.iter().map(|t| t.as_ptr()));
        self
    }

    /// Keeps output number `index` for the backward; outputs stand after the tensors of [`save`](Self::save).
    pub fn save_output(mut self, index: usize) -> Self {
        self.saved_outputs.push(index as i64);
        self
    }

    /// Marks outputs that carry no gradient, by number. Outputs of an integer or boolean kind never do.
    pub fn non_differentiable(mut self, outputs: &[usize]) -> Self {
        self.non_differentiable.extend(outputs.iter().map(|&i| i as i64));
        self
    }

    /// Runs `forward` and records `backward` for later.
    ///
    /// `forward` runs at once, without grad mode, and returns the outputs. It must not change an input in place. An output
    /// may be an input, or a view of one; it then becomes a tensor of its own on the same memory.
    ///
    /// `backward` gets a [`Backward`] and returns one entry for each input: the gradient, of the input's shape, or `None`
    /// where there is none.
    ///
    /// # Errors
    /// What `forward` returned: a [`crate::Error`] or [`tch::TchError`] as it is, anything else as [`Error::Function`].
    /// [`Error::Function`] also if `save_output` or `non_differentiable` name an output that is not there.
    pub fn apply<F, B>(self, forward: F, backward: B) -> Result<Vec<Tensor>>
    where
        F: FnOnce() -> anyhow::Result<Vec<Tensor>>,
        B: FnMut(&Backward) -> anyhow::Result<Vec<Option<Tensor>>> + Send + 'static,
    {
        let mut outputs = {
            let _no_grad = tch::no_grad_guard();
            forward().map_err(|e| self.forward_error(e))?
        };
        let n = outputs.len();
        if let Some(i) = self.saved_outputs.iter().chain(&self.non_differentiable).find(|&&i| i as usize >= n) {
            let reason = format!("there is no output {i}: forward returned {n}");
            return Err(Error::Function { name: self.name.into(), reason });
        }
        let handles: Vec<*mut C_tensor> = outputs.iter_mut().map(Tensor::as_mut_ptr).collect();
        let closure = Box::into_raw(Box::new(backward)).cast::<c_void>();
        // SAFETY: each pointer goes with the length of its vector. The inputs and saved tensors outlive `self` by the
        // lifetime 'a, the outputs are owned here. The node takes the closure over and gives it to the two functions made
        // for its type: one call of `drop_closure` at the end, calls of `call_closure` before that, never two at once.
        ffi::check(unsafe {
            ffi::thruway_make_node(
                self.name.as_ptr().cast(),
                self.name.len(),
                closure,
                call_closure::<B>,
                drop_closure::<B>,
                self.inputs.as_ptr(),
                self.inputs.len(),
                handles.as_ptr(),
                n,
                self.non_differentiable.as_ptr(),
                self.non_differentiable.len(),
                self.saved.as_ptr(),
                self.saved.len(),
                self.saved_outputs.as_ptr(),
                self.saved_outputs.len(),
            )
        })?;
        Ok(outputs)
    }

    fn forward_error(&self, e: anyhow::Error) -> Error {
        e.downcast::<Error>()
            .or_else(|e| e.downcast::<tch::TchError>().map(Error::from))
            .unwrap_or_else(|e| Error::Function { name: self.name.into(), reason: without_backtrace(format!("{e:#}")) })
    }
}

/// What the backward closure of a [`Function`] is given.
///
/// ```
/// use tch::{Kind, Tensor};
/// use thruway::autograd::Function;
///
/// // Norm and direction of a vector at once. The direction is wanted again in the backward: an output, saved as such.
/// let v = Tensor::from_slice(&[3f64, 4.]).set_requires_grad(true);
/// let out = Function::new("Polar").inputs(&[&v]).save_output(0).save_output(1).apply(
///     || Ok(vec![v.norm(), &v / v.norm()]),
///     |b| {
///         let (norm, unit) = (&b.saved()[0], &b.saved()[1]);
///         let mut grad = unit.zeros_like();
///         if let Some(g) = &b.grads()[0] {
///             grad += g * unit;
///         }
///         if let Some(g) = &b.grads()[1] {
///             grad += (g - unit * g.dot(unit)) / norm;
///         }
///         Ok(vec![Some(grad)])
///     },
/// )?;
/// let g = Tensor::f_run_backward(&[&out[0]], &[&v], true, false)?; // the loss uses the norm alone
/// assert_eq!(Vec::<f64>::try_from(&g[0])?, [0.6, 0.8]);
/// let g = Tensor::f_run_backward(&[out[1].f_get(0)?], &[&v], true, false)?; // its first direction cosine
/// assert!((g[0].double_value(&[0]) - 0.128).abs() < 1e-15 && (g[0].double_value(&[1]) + 0.096).abs() < 1e-15);
/// # anyhow::Ok(())
/// ```
pub struct Backward<'a> {
    grads: &'a [Option<Tensor>],
    saved: &'a [Tensor],
    needs: &'a [bool],
}

impl Backward<'_> {
    /// Gradient of the loss for each output; `None` where the loss does not depend on that output, or where it is not
    /// differentiable. At least one is there: the closure is not called otherwise.
    pub fn grads(&self) -> &[Option<Tensor>] {
        self.grads
    }

    /// Gradient of the loss for output `index`.
    ///
    /// # Errors
    /// If there is none. It cannot happen with a single output.
    pub fn grad(&self, index: usize) -> anyhow::Result<&Tensor> {
        let grad = self.grads.get(index).ok_or_else(|| anyhow::anyhow!("there is no output {index}"))?;
        grad.as_ref().ok_or_else(|| anyhow::anyhow!("output {index} has no gradient"))
    }

    /// The tensors of [`Function::save`], then those of [`Function::save_output`], each in the order of the calls.
    pub fn saved(&self) -> &[Tensor] {
        self.saved
    }

    /// Which inputs need a gradient in this backward pass. The others' may be left `None`, which saves their computation.
    pub fn needs(&self) -> &[bool] {
        self.needs
    }
}

/// The shim's way to a closure of type `B`.
///
/// # Safety
/// `closure` is a `Box<B>` turned raw, not in use elsewhere; the arrays hold as many entries as said; `grads` and `saved`
/// are owned by the callee (`grads` may be null entries, `saved` not); `error` is a `std::string`.
unsafe extern "C" fn call_closure<B>(
    closure: *mut c_void,
    grads: *mut *mut C_tensor,
    n_grads: usize,
    saved: *mut *mut C_tensor,
    n_saved: usize,
    needs: *const bool,
    out: *mut *mut C_tensor,
    n_inputs: usize,
    error: *mut c_void,
) -> c_int
where
    B: FnMut(&Backward) -> anyhow::Result<Vec<Option<Tensor>>> + Send + 'static,
{
    // SAFETY: by this function's contract.
    let (closure, grads, saved, needs, out) = unsafe {
        (
            &mut *closure.cast::<B>(),
            slice(grads, n_grads),
            slice(saved, n_saved),
            slice(needs.cast_mut(), n_inputs),
            slice(out, n_inputs),
        )
    };
    match run_closure(closure, grads, saved, needs, out) {
        Ok(()) => 0,
        Err(reason) => {
            // SAFETY: the shim copies the bytes into its string.
            unsafe { ffi::thruway_set_string(error, reason.as_ptr().cast(), reason.len()) };
            1
        }
    }
}

/// # Safety
/// `n` values at `p`, for this call alone; `p` may be null if there are none.
unsafe fn slice<'a, T>(p: *mut T, n: usize) -> &'a mut [T] {
    // The data pointer of an empty C++ vector is null, which a Rust slice's must not be.
    if n == 0 {
        return &mut [];
    }
    // SAFETY: by this function's contract.
    unsafe { std::slice::from_raw_parts_mut(p, n) }
}

type Closure<'a> = &'a mut dyn FnMut(&Backward) -> anyhow::Result<Vec<Option<Tensor>>>;

/// Calls the closure on tensors it takes over and writes its result to `out`; nothing unwinds from here.
fn run_closure(
    closure: Closure,
    grads: &[*mut C_tensor],
    saved: &[*mut C_tensor],
    needs: &[bool],
    out: &mut [*mut C_tensor],
) -> std::result::Result<(), String> {
    // SAFETY: the shim allocated each tensor for us to own.
    let own = |&p: &*mut C_tensor| unsafe { Tensor::from_ptr(p) };
    let grads: Vec<Option<Tensor>> = grads.iter().map(|p| (!p.is_null()).then(|| own(p))).collect();
    let saved: Vec<Tensor> = saved.iter().map(own).collect();
    let result = catch_unwind(AssertUnwindSafe(move || {
        closure(&Backward { grads: &grads, saved: &saved, needs }).map_err(|e| without_backtrace(format!("{e:#}")))
    }));
    let result = result.unwrap_or_else(|payload| Err(format!("panicked: {}", panic_message(payload))))?;
    if result.len() != needs.len() {
        return Err(format!("backward returned {} gradients for {} inputs", result.len(), needs.len()));
    }
    for (out, grad) in out.iter_mut().zip(result) {
        *out = grad.map_or(std::ptr::null_mut(), |t| ManuallyDrop::new(t).as_mut_ptr());
    }
    Ok(())
}

/// # Safety
/// `closure` is a `Box<B>` turned raw, which nobody uses afterwards.
unsafe extern "C" fn drop_closure<B>(closure: *mut c_void) {
    // SAFETY: by this function's contract.
    let closure = unsafe { Box::from_raw(closure.cast::<B>()) };
    // The drop of something captured may panic, which must not pass through C++.
    if let Err(payload) = catch_unwind(AssertUnwindSafe(move || drop(closure))) {
        panic_message(payload);
    }
}

/// The text of a panic. A payload that is no text is leaked, as its own drop might panic.
fn panic_message(payload: Box<dyn Any + Send>) -> String {
    let payload = match payload.downcast::<String>() {
        Ok(text) => return without_backtrace(*text),
        Err(payload) => payload,
    };
    match payload.downcast::<&'static str>() {
        Ok(text) => text.to_string(),
        Err(payload) => {
            std::mem::forget(payload);
            "no message".into()
        }
    }
}

/// libtorch's errors carry some forty lines of C++ frames; in the message of a failed `unwrap` they are escaped.
fn without_backtrace(text: String) -> String {
    match text.split_once("Exception raised from") {
        Some((head, _)) => head.trim_end().trim_end_matches("\\n").to_string(),
        None => text,
    }
}
