"""SMDM's released format: one safetensors file for each model (Nie et al. 2024, github.com/ML-GSAI/SMDM)."""
