from pocketgrad.number import Value, lift

x, y, z = Value(1.5), Value(-0.75), lift(3)
a = x * y - z / x
b = (a + 2) * (a - y) / (1 + x * x)
c = -b + 5 / (z - y) + b * a
c.backward()
for name, v in dict(a=a, b=b, c=c).items():
    print(name, v.data, v.grad)
print(x.grad, y.grad, z.grad)
