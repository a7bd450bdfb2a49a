//! End-to-end tests: the real conductord, conductorctl and conductor-shim with a scripted agent, real signals and real
//! kills. One binary, so that it is linked once; a module for each part of the promise.

mod audit;
mod auth;
mod bus;
mod children;
mod clients;
mod clock;
mod common;
mod confined;
mod doctor;
mod events;
mod failpoints;
mod foreign;
mod group;
mod hostile;
mod idempotent;
mod idle;
mod input;
mod limits;
mod pressure;
mod prompts;
mod ralph;
mod recovery;
mod refused;
mod secrets;
mod steering;
mod streams;
mod tampering;
mod watching;
